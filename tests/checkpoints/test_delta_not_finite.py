"""A delta with a value that is no finite number is neither written nor applied."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness.base.errors import BadInputError, HarnessError
from harness.checkpoints.delta import ExpertDelta, load_delta, save_delta


def delta(value: float = 1.0, dtype: torch.dtype = torch.float32) -> ExpertDelta:
    values = torch.ones(1, 2, 3, dtype=dtype)
    values[0, 1, 2] = value
    return ExpertDelta("base", {1: [4]}, {1: {"down_proj": values}})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_not_read(tmp_path, value, dtype):
    path = tmp_path / "delta.safetensors"
    save_delta(delta(dtype=dtype), path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file(
        {"layers.1.experts.down_proj": delta(value, dtype).tensors[1]["down_proj"]}, path, metadata=header
    )
    with pytest.raises(
        BadInputError, match=r"layer 1, down_proj, is not a finite number: it cannot be applied"
    ):
        load_delta(path)


def test_it_is_not_written(tmp_path):
    with pytest.raises(HarnessError, match="the training has diverged"):
        save_delta(delta(math.nan), tmp_path / "delta.safetensors")
    assert list(tmp_path.iterdir()) == []
