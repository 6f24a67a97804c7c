"""LoRA on selected experts: what is trained, what its gradients are, and that a merge is exact."""

from __future__ import annotations

import pytest
import torch

from harness.checkpoints.delta import applied, load_delta, save_delta
from harness.config import TrainingConfig
from harness.models.moe import Expert, find_moe
from harness.pipeline.memory import parameters_of
from harness.training.bank import ExpertBank, delta_of
from harness.training.examples import Example, collate
from harness.training.loop import answer_loss, train_bank
from harness.training.lora import Lora, lora_of

EXAMPLES = [Example(tuple(range(10, 20 + i)), (*range(100, 104), 2), "refuse") for i in range(8)]
LORA = Lora(rank=3, alpha=6.0)


def some_experts(moe):
    return [Expert(layer.index, expert) for layer in moe.layers for expert in (0, 2, 3, 5)]


def lora_bank(moe, moved: bool = True):
    """A bank with factors that are no longer zero."""
    torch.manual_seed(1)
    bank = ExpertBank(moe, some_experts(moe), lora=LORA)
    if moved:
        with torch.no_grad():
            for parameter in bank.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return bank


def logits_of(model):
    with torch.inference_mode():
        return model(torch.arange(20, 52).reshape(2, 16)).logits.clone()


def test_an_untrained_bank_holds_the_models_own_values_exactly(tiny_model, family):
    model = tiny_model(family)
    moe = find_moe(model)
    for index, layer in lora_bank(moe, moved=False).layers.items():
        for name, values in layer.values(torch.float32).items():
            assert torch.equal(values, moe.layer(index).weight(name)[layer.experts])


def test_factors_of_matrices_are_trained_and_nothing_else(tiny_model, family):
    moe = find_moe(tiny_model(family))
    bank = lora_bank(moe)
    per_expert = sum(
        LORA.rank * sum(moe.layers[0].weight(name).shape[1:])
        for name in moe.layers[0].weights
        if not name.endswith("bias")
    )
    assert bank.size == len(some_experts(moe)) * per_expert
    assert bank.size == parameters_of(moe, some_experts(moe), LORA.rank)  # what a dry run reckons with
    for index, layer in bank.layers.items():
        for name, values in layer.values(torch.float32).items():
            own = moe.layer(index).weight(name)[layer.experts]
            assert torch.equal(values, own) == name.endswith("bias")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_with_the_bank_says_what_the_merged_model_says(tiny_model, family, dtype, tmp_path):
    """The values are the same to the last bit; only the order of sums in products of other sizes differs."""
    model = tiny_model(family).to(dtype)
    moe = find_moe(model)
    bank = lora_bank(moe)
    before = logits_of(model)
    with bank.installed():
        changed = logits_of(model)
    save_delta(delta_of(bank, "base", dtype), tmp_path / "delta.safetensors")
    delta = load_delta(tmp_path / "delta.safetensors")
    for index, layer in bank.layers.items():
        values = layer.values(dtype)
        assert all(torch.equal(values[name], delta.tensors[index][name]) for name in values)
    with applied(moe, delta):
        merged = logits_of(model)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(changed, merged, rtol=tolerance, atol=tolerance)
    assert (changed - before).abs().max() > 10 * tolerance


def test_the_update_is_alpha_over_rank_times_the_product_of_the_factors(tiny_model, family):
    moe = find_moe(tiny_model(family))
    bank = lora_bank(moe)
    for index, layer in bank.layers.items():
        for name, factors in layer.factors.items():
            expected = moe.layer(index).weight(name)[layer.experts] + 2.0 * factors.left @ factors.right
            torch.testing.assert_close(layer.values(torch.float32)[name], expected)


def test_gradients_are_those_of_the_full_matrices_by_the_chain_rule(tiny_model, family):
    moe = find_moe(tiny_model(family))
    low, full = lora_bank(moe), ExpertBank(moe, some_experts(moe))
    with torch.no_grad():
        for index, layer in full.layers.items():
            for name, values in low.layers[index].values(torch.float32).items():
                layer.weights[name].copy_(values)
    for bank in (low, full):
        with bank.installed():
            answer_loss(moe.model, collate(EXAMPLES, 0, torch.device("cpu"))).backward()
    for index, layer in low.layers.items():
        for name, factors in layer.factors.items():
            gradient = full.layers[index].weights[name].grad
            left, right = 2.0 * gradient @ factors.right.mT, 2.0 * factors.left.mT @ gradient
            for found, expected in ((factors.left.grad, left), (factors.right.grad, right)):
                assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_random_factor_is_the_inputs_in_either_layout(tiny_model):
    for family, inputs in (("qwen3_moe", "right"), ("gpt_oss", "left")):
        bank = lora_bank(find_moe(tiny_model(family)), moved=False)
        for layer in bank.layers.values():
            for factors in layer.factors.values():
                sides = {"left": factors.left, "right": factors.right}
                assert sides.pop(inputs).abs().max() > 0
                assert sides.popitem()[1].abs().max() == 0


def test_training_lowers_the_loss_and_leaves_the_models_own_weights(tiny_loaded):
    loaded = tiny_loaded("gpt_oss")
    before = {name: value.clone() for name, value in loaded.moe.model.state_dict().items()}
    bank = ExpertBank(loaded.moe, loaded.moe.all_experts(), lora=Lora(rank=4, alpha=8.0))
    config = TrainingConfig(epochs=20, batch_size=8, learning_rate=1e-2)
    result = train_bank(loaded, bank, EXAMPLES, config, seed=0)
    assert result.log[-1]["loss"] < 0.7 * result.log[0]["loss"]
    assert result.without_gradient == []
    assert all(torch.equal(v, before[name]) for name, v in loaded.moe.model.state_dict().items())


def test_settings_choose_it():
    assert lora_of(TrainingConfig()) is None
    assert lora_of(TrainingConfig(lora_rank=8, lora_alpha=32)) == Lora(8, 32.0)
