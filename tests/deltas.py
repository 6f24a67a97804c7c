"""Deltas for tests, and the single bits that break what is said about checkpoints."""

from __future__ import annotations

from typing import Any

import torch

from harness.checkpoints.delta import ExpertDelta
from harness.checkpoints.delta_file import write_delta
from harness.checkpoints.proof import model_fingerprint
from harness.models.load import ModelRef
from harness.models.moe import Expert, find_moe
from harness.models.weights import Place


def random_delta(moe: Any, experts: list[Expert], dtype: Any = None, base: str = "a base") -> ExpertDelta:
    """New values for every weight of some experts, as if they had been trained."""
    generator = torch.Generator().manual_seed(0)
    numbers: dict[int, list[int]] = {}
    for layer, expert in sorted(experts):
        numbers.setdefault(layer, []).append(expert)
    tensors = {}
    for layer, rows in numbers.items():
        tensors[layer] = {}
        for name in moe.layer(layer).weights:
            old = moe.layer(layer).weight(name)[rows]
            noise = torch.randn(old.shape, generator=generator)
            tensors[layer][name] = (old.float() + noise).to(dtype or old.dtype)
    return ExpertDelta(base, numbers, tensors)


def some_experts(moe: Any) -> list[Expert]:
    """The second expert of the first MoE layer, the third and the last of the last."""
    first, last = moe.layer_indices[0], moe.layer_indices[-1]
    return sorted({Expert(first, 1), Expert(last, 2), Expert(last, moe.n_experts - 1)})


def saved_delta(model: Any, base: Any, folder: Any) -> ExpertDelta:
    """Write a random delta of a loaded model, whose checkpoint is the folder `base`."""
    moe = find_moe(model)
    delta = random_delta(moe, some_experts(moe), base=model_fingerprint(base))
    folder.mkdir()
    write_delta(folder, delta, moe, ModelRef("the base", base), {"steps": 3})
    return delta


def flip_bit(place: Place, byte: int = 0) -> None:
    """Change the lowest bit of one stored byte."""
    data = bytearray(place.read_bytes())
    data[byte] ^= 1
    place.write_bytes(bytes(data))
