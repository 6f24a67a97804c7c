"""The gradient score equals what plain autograd gives for whole tensors, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch

from harness.base.errors import BadInputError, HarnessError
from harness.training.examples import Example, batch_order, collate
from harness.training.gradient import expert_gradients
from harness.training.loop import answer_loss


def examples(n: int) -> list[Example]:
    return [
        Example(tuple(range(10 + i, 20 + 2 * i)), (*range(100 + i, 103 + 2 * i), 2), "refuse")
        for i in range(n)
    ]


def by_autograd(loaded, batches) -> torch.Tensor:
    """Root mean square over batches of each expert's gradient norm, from an eager model's full gradients."""
    model = loaded.moe.model
    model.set_experts_implementation("eager")
    squares = torch.zeros(len(loaded.moe.layers), loaded.moe.n_experts, dtype=torch.float64)
    model.requires_grad_(True)
    for rows in batches:
        batch = collate([examples(6)[i] for i in rows], 0, loaded.device)
        (answer_loss(model, batch) / len(batch.targets)).backward()
        for place, layer in enumerate(loaded.moe.layers):
            for name in layer.weights:
                squares[place] += layer.weight(name).grad.flatten(1).double().square().sum(1)
        model.zero_grad(set_to_none=True)
    model.requires_grad_(False)
    return (squares / len(batches)).sqrt()


def test_scores_are_the_norms_of_full_gradients(tiny_loaded, family):
    loaded = tiny_loaded(family)
    found = expert_gradients(loaded, examples(6), batch_size=4)
    expected = by_autograd(loaded, batch_order(examples(6), 4, seed=0, epoch=0))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-7)
    assert (found > 0).any()


def test_the_model_is_left_as_it_was(tiny_loaded):
    loaded = tiny_loaded("qwen3_moe")
    before = {name: value.clone() for name, value in loaded.moe.model.state_dict().items()}
    implementation = loaded.moe.model.config._experts_implementation
    expert_gradients(loaded, examples(3), batch_size=2)
    assert loaded.moe.model.config._experts_implementation == implementation
    assert all(torch.equal(value, before[name]) for name, value in loaded.moe.model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in loaded.moe.model.parameters())
    assert not any(
        layer.weight(name)._post_accumulate_grad_hooks
        for layer in loaded.moe.layers
        for name in layer.weights
    )


def test_checkpointing_changes_no_score(tiny_loaded):
    loaded = tiny_loaded("mixtral")
    plain = expert_gradients(loaded, examples(4), batch_size=2)
    torch.testing.assert_close(expert_gradients(loaded, examples(4), batch_size=2, checkpointing=True), plain)


def test_nothing_to_take_the_loss_on_is_bad_input(tiny_loaded):
    with pytest.raises(BadInputError, match="no harmful train prompts"):
        expert_gradients(tiny_loaded("qwen3_moe"), [], batch_size=2)


def test_a_gradient_that_is_not_a_number_names_its_layer(tiny_loaded):
    loaded = tiny_loaded("mixtral")
    loaded.moe.layers[1].weight("down_proj")[3] = float("inf")
    with pytest.raises(HarnessError, match=r"layer [0-2]: the refusal loss's gradient is not a number"):
        expert_gradients(loaded, examples(2), batch_size=2)
