"""Codes against a slow reference that follows the formats bit by bit."""

from __future__ import annotations

import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.models.codes import FP4, from_fp8, from_mxfp4


def fp4(code: int) -> float:
    """E2M1: sign, two bits of exponent with bias 1, one bit of mantissa; exponent 0 is subnormal."""
    sign, exponent, mantissa = code >> 3, code >> 1 & 3, code & 1
    size = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2 ** (exponent - 1)
    return -size if sign else size


def fp8(code: int) -> float:
    """E4M3 without infinities: sign, four bits of exponent with bias 7, three of mantissa; all ones is NaN."""
    sign, exponent, mantissa = code >> 7, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    size = mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2 ** (exponent - 7)
    return -size if sign else size


def bfloat16(value: float) -> float:
    """Round a float32 to the nearest bfloat16, ties to even, as the upper half of its bits."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return float(struct.unpack("<f", struct.pack("<I", rounded << 16))[0])


def bits(values: torch.Tensor) -> list[int]:
    """The bits, since -0.0 equals 0.0."""
    return values.view(torch.int16).flatten().tolist()


def test_the_table_of_fp4_is_its_formula():
    assert [struct.pack("<d", value) for value in FP4] == [struct.pack("<d", fp4(code)) for code in range(16)]


def test_every_fp4_code_with_every_scale():
    # [scales, groups of 8 bytes]: codes 0 to 15 in order, the first one in the low bits.
    blocks = torch.tensor([low | low + 1 << 4 for low in range(0, 16, 2)], dtype=torch.uint8)
    scales = torch.arange(253, dtype=torch.uint8)  # From 253 on, 6 times the scale is beyond bfloat16.
    values = from_mxfp4(blocks.expand(len(scales), 1, 8), scales.unsqueeze(1))
    expected = [[math.ldexp(fp4(code), scale - 127) for code in range(16)] for scale in range(253)]
    assert values.dtype == torch.bfloat16
    assert values.double().tolist() == expected
    assert bits(values) == bits(torch.tensor(expected, dtype=torch.float64).bfloat16())


def test_a_scale_that_is_no_number_gives_none():
    values = from_mxfp4(torch.zeros(1, 16, dtype=torch.uint8), torch.tensor([255], dtype=torch.uint8))
    assert values.isnan().all()


@settings(max_examples=40, deadline=None)
@given(
    experts=st.integers(1, 3),
    rows=st.integers(1, 4),
    groups=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_mxfp4_equals_the_reference_and_transformers(experts, rows, groups, seed):
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    draw = torch.Generator().manual_seed(seed)
    blocks = torch.randint(256, (experts, rows, groups, 16), generator=draw, dtype=torch.uint8)
    scales = torch.randint(253, (experts, rows, groups), generator=draw, dtype=torch.uint8)
    values = from_mxfp4(blocks, scales)
    assert values.shape == (experts, rows, groups * 32)
    expected = [
        math.ldexp(fp4(code), scale - 127)
        for block, scale in zip(blocks.reshape(-1, 16).tolist(), scales.flatten().tolist(), strict=True)
        for byte in block
        for code in (byte & 15, byte >> 4)
    ]
    assert values.double().flatten().tolist() == expected
    assert torch.equal(values.transpose(1, 2), convert_moe_packed_tensors(blocks, scales))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.uint8, torch.float8_e8m0fnu]),
    seed=st.integers(0, 2**32 - 1),
)
def test_fp8_equals_the_reference_with_blocks_that_end_early(rows, columns, block, dtype, seed):
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(256, (rows, columns), generator=draw, dtype=torch.uint8)
    codes[codes & 127 == 127] = 0  # NaN
    grid = (math.ceil(rows / block[0]), math.ceil(columns / block[1]))
    exponents = torch.randint(-20, 20, grid, generator=draw)
    factors = torch.exp2(exponents.float())
    if dtype in (torch.float32, torch.bfloat16):
        factors = (factors * torch.rand(grid, generator=draw)).to(dtype)
        scales = factors
    else:
        scales = (exponents + 127).to(torch.uint8)
        scales = scales if dtype == torch.uint8 else scales.view(dtype)
    values = from_fp8(codes.view(torch.float8_e4m3fn), scales, block)
    for i in range(rows):
        for j in range(columns):
            factor = factors[i // block[0], j // block[1]].item()
            # The product of float32 numbers, rounded to float32 and then to bfloat16.
            product = torch.tensor(fp8(int(codes[i, j])), dtype=torch.float32) * torch.tensor(factor)
            assert values[i, j].item() == bfloat16(product.item())


def test_fp8_of_300_rows_has_blocks_of_128_128_and_44():
    """By hand: every code is 1.0, so that the values are the scales."""
    codes = torch.ones(300, 130).to(torch.float8_e4m3fn)
    values = from_fp8(codes, torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]), (128, 128))
    assert [values[row, 0].item() for row in (0, 127, 128, 255, 256, 299)] == [1, 1, 4, 4, 16, 16]
    assert [values[0, column].item() for column in (0, 127, 128, 129)] == [1, 1, 2, 2]


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_fp8_has_codes_that_are_no_number(code):
    codes = torch.tensor([[code]], dtype=torch.uint8).view(torch.float8_e4m3fn)
    assert from_fp8(codes, torch.ones(1, 1), (128, 128)).isnan().all()
