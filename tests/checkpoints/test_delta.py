"""Deltas go into a model and out of it again without changing a bit, and survive the disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.base.errors import BadInputError
from harness.checkpoints.delta import ExpertDelta, applied, load_delta, save_delta, write_delta_into
from harness.models.moe import Expert, find_moe
from harness.training.bank import ExpertBank, delta_of

EXPERTS = [Expert(1, 2), Expert(1, 5), Expert(2, 0)]


def changed_delta(moe, dtype=torch.float32) -> ExpertDelta:
    bank = ExpertBank(moe, EXPERTS)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return delta_of(bank, "a base", dtype)


def test_applying_sets_the_named_experts_alone(tiny_model, family):
    model = tiny_model(family)
    moe = find_moe(model)
    delta = changed_delta(moe)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with applied(moe, delta):
        for layer in moe.layers:
            trained = delta.experts.get(layer.index, [])
            for name in layer.weights:
                weight, old = layer.weight(name), before[f"{layer.name}.{name}"]
                for expert in range(layer.n_experts):
                    if expert in trained:
                        values = delta.tensors[layer.index][name][trained.index(expert)]
                        assert torch.equal(weight[expert], values)
                        assert not torch.equal(weight[expert], old[expert])
                    else:
                        assert torch.equal(weight[expert], old[expert])


def test_leaving_the_block_restores_every_bit_even_after_an_error(tiny_model, family):
    model = tiny_model(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def fail():
        assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), applied(find_moe(model), changed_delta(find_moe(model))):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_delta_holds_values_of_the_checkpoints_dtype(tiny_model):
    moe = find_moe(tiny_model("mixtral"))
    bank = ExpertBank(moe, [Expert(0, 1)])
    delta = delta_of(bank, "a base", torch.bfloat16)
    values = delta.tensors[0]["down_proj"]
    assert values.dtype == torch.bfloat16
    with applied(moe, delta):  # in float32 memory: what a merged bfloat16 checkpoint would load as
        assert torch.equal(moe.layer(0).weight("down_proj")[1], values[0].float())


def test_a_delta_does_not_follow_its_bank(tiny_model):
    bank = ExpertBank(find_moe(tiny_model("mixtral")), [Expert(0, 1)])
    delta = delta_of(bank, "a base", torch.float32)
    kept = delta.tensors[0]["down_proj"].clone()
    with torch.no_grad():
        bank.layers[0].weights["down_proj"].zero_()
    assert torch.equal(delta.tensors[0]["down_proj"], kept)


def test_saving_and_loading_gives_the_same_delta(tiny_model, family, tmp_path):
    delta = changed_delta(find_moe(tiny_model(family)), torch.bfloat16)
    save_delta(delta, tmp_path / "delta.safetensors")
    loaded = load_delta(tmp_path / "delta.safetensors")
    assert (loaded.base, loaded.experts) == ("a base", {1: [2, 5], 2: [0]})
    assert loaded.selected() == EXPERTS
    assert loaded.parameters == delta.parameters
    for layer, named in delta.tensors.items():
        assert named.keys() == loaded.tensors[layer].keys()
        for name, values in named.items():
            assert loaded.tensors[layer][name].dtype == torch.bfloat16
            assert torch.equal(loaded.tensors[layer][name], values)


def test_values_that_lie_transposed_in_memory_are_saved_as_they_read(tiny_model, tmp_path):
    moe = find_moe(tiny_model("mixtral"))
    delta = changed_delta(moe)
    turned = {name: values.transpose(1, 2).contiguous() for name, values in delta.tensors[1].items()}
    tensors = {**delta.tensors, 1: {name: values.transpose(1, 2) for name, values in turned.items()}}
    assert not tensors[1]["down_proj"].is_contiguous()
    save_delta(replace(delta, tensors=tensors), tmp_path / "delta.safetensors")
    loaded = load_delta(tmp_path / "delta.safetensors")
    assert torch.equal(loaded.tensors[1]["gate_up_proj"], delta.tensors[1]["gate_up_proj"])


@pytest.mark.parametrize(
    "shrink",
    [lambda values: values[:, :-1], lambda values: values[..., :-1], lambda values: values[:1]],
    ids=["rows", "columns", "experts"],
)
def test_a_delta_of_other_shapes_is_refused_and_nothing_is_written(tiny_model, shrink):
    model = tiny_model("qwen3_moe")
    moe = find_moe(model)
    delta = changed_delta(moe)
    tensors = {**delta.tensors, 1: {**delta.tensors[1], "down_proj": shrink(delta.tensors[1]["down_proj"])}}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(BadInputError, match="layer 1, down_proj: shape"):
        write_delta_into(moe, replace(delta, tensors=tensors))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_delta_of_another_kind_of_model_is_refused(tiny_model):
    delta = changed_delta(find_moe(tiny_model("gpt_oss")))
    with pytest.raises(BadInputError, match="delta of layer 1"):
        write_delta_into(find_moe(tiny_model("qwen3_moe")), delta)


def test_a_delta_without_a_weight_of_the_experts_is_refused(tiny_model):
    delta = changed_delta(find_moe(tiny_model("qwen3_moe")))
    tensors = {**delta.tensors, 2: {"down_proj": delta.tensors[2]["down_proj"]}}
    with pytest.raises(BadInputError, match=r"layer 2: holds down_proj, .* have down_proj, gate_up_proj"):
        write_delta_into(find_moe(tiny_model("qwen3_moe")), replace(delta, tensors=tensors))


def test_a_delta_of_experts_that_the_model_lacks_is_refused(tiny_model):
    delta = changed_delta(find_moe(tiny_model("qwen3_moe")))
    moe = find_moe(tiny_model("qwen3_moe", num_experts=4))
    with pytest.raises(BadInputError, match="has no expert 5"), applied(moe, delta):
        pass


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_file_that_was_cut_short_is_refused(tiny_model, tmp_path, kept):
    path = tmp_path / "delta.safetensors"
    save_delta(changed_delta(find_moe(tiny_model("mixtral"))), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInputError, match="not a whole expert delta"):
        load_delta(path)


def test_another_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(BadInputError, match="not a whole expert delta"):
        load_delta(tmp_path / "other.safetensors")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="not a whole expert delta"):
        load_delta(tmp_path / "none.safetensors")
