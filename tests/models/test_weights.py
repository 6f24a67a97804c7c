"""Tensors are found, read and overwritten in place, and every other byte stays."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from harness.base.errors import BadInputError, HarnessError
from harness.models.weights import bytes_of, places, weight_files

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), min_size=1, max_size=5
    )
)
def test_tensors_read_as_safetensors_reads_them(tmp_path_factory, kinds):
    folder = tmp_path_factory.mktemp("weights")
    tensors = {f"t{i}": torch.randn(shape).to(dtype) for i, (dtype, shape) in enumerate(kinds)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = places(folder)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        if value.numel():  # torch cannot read a buffer of no bytes
            assert torch.equal(found[name].read(), value)
            assert found[name].read().dtype == value.dtype
        assert found[name].read_bytes() == bytes_of(value)


def test_one_row_is_overwritten_and_nothing_else(tmp_path):
    tensors = {name: torch.randn(4, 3, 2) for name in ("a", "b", "c")}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    value = torch.full((3, 2), 7.0)
    places(tmp_path)["b"].row(2).write(value)
    expected = {**tensors, "b": tensors["b"].clone()}
    expected["b"][2] = value
    assert (tmp_path / "model.safetensors").read_bytes() == save(expected, metadata={"format": "pt"})
    assert torch.equal(places(tmp_path)["b"].row(2).read(), value)


def test_values_of_another_size_are_not_written(tmp_path):
    save_file({"a": torch.ones(4, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(HarnessError, match="4 bytes for a place of 8"):
        places(tmp_path)["a"].row(1).write(torch.zeros(1))
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], torch.ones(4, 2))


def test_weights_in_a_code_are_not_read_as_numbers(tmp_path):
    save_file({"a": torch.ones(4).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    with pytest.raises(BadInputError, match="stores expert weights as F8_E4M3: expected a dequantized"):
        places(tmp_path)["a"].read()


@pytest.mark.parametrize("kept", [0, 7, 40, -1])
def test_a_file_that_was_cut_short_is_named(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(40)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(HarnessError, match=r"model\.safetensors: not a whole safetensors file"):
        places(tmp_path)


def test_files_are_those_of_the_index(tmp_path):
    with pytest.raises(BadInputError, match="no safetensors weights"):
        weight_files(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "2", "b": "1", "c": "2"}}), encoding="utf-8")
    assert weight_files(tmp_path) == ["1", "2"]
    with pytest.raises(BadInputError, match="1 is missing: expected every file that"):
        places(tmp_path)
    index.write_text("[]", encoding="utf-8")
    with pytest.raises(
        BadInputError, match=r"index\.json: expected a mapping of keys to values, found a list"
    ):
        weight_files(tmp_path)
