"""A low-rank delta, written as an adapter, gives in PEFT what the delta gives here."""

from __future__ import annotations

import copy

import pytest
import torch
from deltas import saved_delta, some_experts

from harness.base.errors import BadInputError
from harness.checkpoints.adapter_of_delta import write_adapter
from harness.checkpoints.delta import ExpertDelta, applied
from harness.checkpoints.delta_file import write_delta
from harness.checkpoints.proof import model_fingerprint
from harness.models.load import ModelRef
from harness.models.moe import find_moe

peft = pytest.importorskip("peft")
IDS = torch.arange(100, 228).reshape(4, 32)


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def low_rank_delta(moe, base, folder, rank: int) -> ExpertDelta:
    """Write a delta that changes each matrix of some experts by a random one of a rank; biases stay."""
    generator, numbers = torch.Generator().manual_seed(0), {}
    for layer, expert in some_experts(moe):
        numbers.setdefault(layer, []).append(expert)
    tensors = {}
    for layer, rows in numbers.items():
        tensors[layer] = {}
        for name in moe.layer(layer).weights:
            value = moe.layer(layer).weight(name)[rows].clone()
            if value.dim() == 3:
                left = torch.randn(len(rows), value.shape[1], rank, generator=generator)
                right = torch.randn(len(rows), rank, value.shape[2], generator=generator)
                value += 0.1 * left @ right
            tensors[layer][name] = value
    delta = ExpertDelta(model_fingerprint(base), numbers, tensors)
    folder.mkdir()
    write_delta(folder, delta, moe, ModelRef("the base", base), {})
    return delta


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "olmoe", "gpt_oss"])
def test_the_adapter_gives_in_peft_what_the_delta_gives_here(tiny_model, saved_model, tmp_path, kind):
    model = tiny_model(kind)
    folder, moe = saved_model(model), find_moe(model)
    delta = low_rank_delta(moe, folder, tmp_path / "delta", 8)
    experts = write_adapter(ModelRef("base", folder), tmp_path / "delta", tmp_path / "adapter", 8)
    assert experts == some_experts(moe)
    before = logits(model)
    with applied(moe, delta):
        expected = logits(model)
    wrapped = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(wrapped), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, before, atol=1e-2)


def test_a_delta_of_a_higher_rank_or_of_biases_is_refused(tiny_model, saved_model, tmp_path):
    model = tiny_model("mixtral")
    folder = saved_model(model)
    low_rank_delta(find_moe(model), folder, tmp_path / "delta", 8)
    with pytest.raises(
        BadInputError, match=r"layer 0 expert 1, \w+: the delta's change is of a rank above 4"
    ):
        write_adapter(ModelRef("base", folder), tmp_path / "delta", tmp_path / "adapter", 4)
    model = tiny_model("gpt_oss")
    folder = saved_model(model, "biased")
    saved_delta(model, folder, tmp_path / "whole")
    with pytest.raises(BadInputError, match="which is no matrix: no adapter can say it"):
        write_adapter(ModelRef("base", folder), tmp_path / "whole", tmp_path / "adapter", 32)
    assert not (tmp_path / "adapter").exists()
