"""Compiling changes nothing but speed, and covers every layer."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from harness.models.moe import Expert, find_moe
from harness.training.bank import ExpertBank
from harness.training.checkpointing import checkpointed_from
from harness.training.examples import Example, collate
from harness.training.loop import answer_loss

# Two lengths, since batches differ.
BATCHES = [
    collate([Example(tuple(range(10, 20 + n)), (7, 8, 9, 2), "refuse")] * 2, 0, torch.device("cpu"))
    for n in (0, 5, 9)
]


def gradients(moe, bank):
    losses = []
    for parameter in bank.parameters():
        parameter.grad = None
    with bank.installed(), checkpointed_from(moe, 1):
        for batch in BATCHES:
            loss = answer_loss(moe.model, batch)
            loss.backward()
            losses.append(loss.detach())
    return [*losses, *(parameter.grad for parameter in bank.parameters())]


@pytest.fixture
def compiled_parts(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("compiled").compiled_parts


@pytest.mark.slow
def test_compiled_parts_give_the_same_loss_and_gradients(tiny_model, compiled_parts):
    torch._dynamo.reset()
    moe = find_moe(tiny_model("qwen3_moe"))
    bank = ExpertBank(moe, [Expert(layer, expert) for layer in (1, 2) for expert in (0, 2, 5)])
    attributes = [set(vars(module)) for module in moe.model.modules()]
    expected = gradients(moe, bank)
    counters.clear()
    # A backend that needs no C++ compiler and is quick.
    whole = torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)
    with whole, compiled_parts(moe, backend="aot_eager"):
        found = gradients(moe, bank)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    # Attention and two norms of each layer ran compiled: nothing was given up on.
    assert counters["frames"]["ok"] == counters["frames"]["total"] > 0
    assert not counters["unimplemented"]
    assert [set(vars(module)) for module in moe.model.modules()] == attributes
