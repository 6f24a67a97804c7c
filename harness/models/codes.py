"""From the codes of MXFP4 and FP8 to bfloat16."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# E2M1 by its four bits: sign, two of exponent, one of mantissa (OCP Microscaling Formats, table 5).
FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
# Of E8M0, the scales: an exponent of two, and no number at all.
_BIAS, _NOT_A_NUMBER = 127, 255


def from_mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Decode MXFP4; the results are exact where bfloat16 has the number.

    Args:
        blocks: [..., G, B] uint8, two codes per byte, the first one in the low four bits.
        scales: [..., G] uint8, one per 2 B values.

    Returns:
        [..., G * 2 B] bfloat16. A scale of 255 gives NaN.
    """
    import torch

    codes = torch.stack([blocks & 0xF, blocks >> 4], dim=-1).flatten(-2)
    values = _table()[scales.long().unsqueeze(-1), codes.long()]
    return values.flatten(-2)


@cache
def _table() -> torch.Tensor:
    """Return every value that a scale and a code can have: [256, 16] bfloat16."""
    import torch

    rows = [[math.ldexp(value, scale - _BIAS) for value in FP4] for scale in range(_NOT_A_NUMBER)]
    return torch.tensor([*rows, [math.nan] * len(FP4)], dtype=torch.float64).bfloat16()


def from_fp8(codes: torch.Tensor, scales: torch.Tensor, block: tuple[int, int]) -> torch.Tensor:
    """Decode FP8 in blocks; the product is taken in float32 and rounded once.

    Args:
        codes: [rows, columns] float8_e4m3fn.
        scales: [rows / block[0], columns / block[1]], rounded up: the last blocks may be smaller. uint8 is an exponent.
        block: rows and columns that share a scale.

    Returns:
        [rows, columns] bfloat16.
    """
    import torch

    rows, columns = codes.shape
    factors = scales.float() if scales.dtype != torch.uint8 else torch.exp2(scales.float() - _BIAS)
    factors = factors.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    return (codes.float() * factors).bfloat16()
