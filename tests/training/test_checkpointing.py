"""Below the lowest trained layer nothing is recomputed or differentiated; counted, not timed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from moe_families import FAMILIES, build, skip_if_missing

from harness.base.errors import BadInputError
from harness.config import TrainingConfig
from harness.models.moe import Expert, find_moe
from harness.training.bank import ExpertBank
from harness.training.checkpointing import checkpointed_from, layers_from
from harness.training.examples import Example, collate
from harness.training.loop import answer_loss, train_bank

EXAMPLES = [Example(tuple(range(10, 20 + i)), (*range(100, 104), 2), "refuse") for i in range(4)]


def step(loaded, experts, checkpointing):
    """Train one step; returns how often each layer's inside ran forward, and which outputs wanted a gradient."""
    calls, wanted = Counter(), set()

    def count(index):
        def hook(module, args, output):
            calls[index] += 1
            if output.requires_grad:
                wanted.add(index)

        return hook

    for index, layer in enumerate(loaded.moe.model.model.layers):
        layer.post_attention_layernorm.register_forward_hook(count(index))
    bank = ExpertBank(loaded.moe, experts)
    config = TrainingConfig(epochs=1, batch_size=4, gradient_checkpointing=checkpointing)
    log = train_bank(loaded, bank, EXAMPLES, config, seed=0).log
    return calls, wanted, bank, log


@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_below_the_lowest_trained_run_once_and_backward_never_enters_them(tiny_loaded, checkpointing):
    loaded = tiny_loaded("mixtral")
    again = 2 if checkpointing else 1
    calls, wanted, _, _ = step(loaded, [Expert(1, e) for e in range(8)], checkpointing)
    assert calls == {0: 1, 1: again, 2: again}
    # Layer 1's norm runs before its experts: the first gradient is wanted behind those.
    assert wanted == {2}


def test_the_cut_changes_neither_loss_nor_gradients(tiny_loaded):
    experts = [Expert(1, e) for e in range(8)]
    _, _, plain, log = step(tiny_loaded("mixtral"), experts, False)
    _, _, cut, other = step(tiny_loaded("mixtral"), experts, True)
    assert log == other
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), cut.parameters(), strict=True))


def test_after_the_block_the_model_is_as_before(tiny_model):
    model = tiny_model("qwen3_moe")
    before = [set(vars(module)) for module in model.modules()]
    with checkpointed_from(find_moe(model), 1):
        assert [module.training for module in model.model.layers] == [False, True, True]
        assert not model.model.layers[1].self_attn.training
    assert [set(vars(module)) for module in model.modules()] == before
    assert not any(module.training for module in model.modules())
    # transformers' own switch leaves a hook behind that makes the embeddings' output want a gradient.
    assert not model(torch.arange(10, 20)[None]).logits.requires_grad


@pytest.mark.parametrize("model_type", FAMILIES)
def test_the_layers_of_every_family_are_found_and_their_gradients_are_those_without_recomputing(model_type):
    skip_if_missing(model_type)
    moe = find_moe(build(model_type))
    assert len(layers_from(moe, 0)) == 3
    last = moe.layers[-1].index
    batch = collate(EXAMPLES[:1], 0, torch.device("cpu"))
    banks = [ExpertBank(moe, [Expert(last, e) for e in range(8)]) for _ in range(2)]
    with banks[0].installed():
        answer_loss(moe.model, batch).backward()
    with banks[1].installed(), checkpointed_from(moe, last):
        answer_loss(moe.model, batch).backward()
    for a, b in zip(banks[0].parameters(), banks[1].parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_model_whose_layers_cannot_be_recomputed_is_refused(tiny_model):
    moe = find_moe(tiny_model("mixtral"))
    with (
        pytest.raises(BadInputError, match="'mixtral' cannot recompute activations"),
        checkpointed_from(moe, 3),
    ):
        pass
