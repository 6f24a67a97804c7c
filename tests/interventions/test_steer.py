"""Steering keeps experts from being routed to, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch
from moe_families import FAMILIES, build, skip_if_missing
from watched import IDS, routed

from harness.base.errors import BadInputError, HarnessError, VariantImpossibleError
from harness.experts.select import ExpertSelection
from harness.interventions.masking import _watch, steered, why_not_steerable
from harness.models.moe import Expert, find_moe


def select(*experts) -> dict[int, list[int]]:
    return ExpertSelection("test", "all", tuple(Expert(*expert) for expert in experts)).by_layer()


@pytest.fixture
def moe(tiny_model, family):
    return find_moe(tiny_model(family))


def test_masked_experts_are_never_routed_to_and_others_are(moe):
    last = moe.layers[-1]
    busiest = routed(moe)[-1].flatten().bincount(minlength=8).argsort(descending=True)[:2].tolist()
    selection = select(*((last.index, expert) for expert in busiest))
    with steered(moe, selection):
        chosen = routed(moe)
    assert not torch.isin(chosen[-1], torch.tensor(busiest)).any()
    assert all(len(set(row)) == 2 for row in chosen[-1].tolist())
    assert torch.equal(chosen[:-1], routed(moe)[:-1])  # layers below are as before


def test_with_all_but_k_masked_every_token_gets_the_rest(moe):
    """For deepseek_v3 the two that are left are of one group: its group limit allows no others."""
    layer = moe.layers[0].index
    with steered(moe, select(*((layer, expert) for expert in range(8) if expert not in (2, 3)))):
        assert {tuple(sorted(row)) for row in routed(moe)[0].tolist()} == {(2, 3)}


def test_after_the_block_the_model_is_as_before_even_after_an_error(moe):
    with torch.inference_mode():
        before = moe.model(IDS).logits

    def fail():
        with torch.inference_mode():
            assert not torch.equal(moe.model(IDS).logits, before)
        raise RuntimeError("boom")

    everywhere = select(*((layer.index, expert) for layer in moe.layers for expert in (0, 1, 5)))
    with pytest.raises(RuntimeError, match="boom"), steered(moe, everywhere):
        fail()
    with torch.inference_mode():
        assert torch.equal(moe.model(IDS).logits, before)
    for layer in moe.layers:
        assert "forward" not in layer.router.__dict__
        assert not layer.experts._forward_pre_hooks


def test_too_many_experts_of_a_layer_have_a_reason(tiny_model):
    moe = find_moe(tiny_model("qwen3_moe"))
    seven = select(*((2, expert) for expert in range(7)))
    assert why_not_steerable(moe, seven) == "layer 2 would keep 1 experts, fewer than the 2 a token needs"
    assert why_not_steerable(moe, select(*((2, expert) for expert in range(6)))) is None
    with pytest.raises(BadInputError, match="steer: layer 2 would keep 1 experts"), steered(moe, seven):
        pass


def test_a_masked_expert_that_is_chosen_all_the_same_fails_the_run(tiny_model):
    """As it would where a router scores experts with something other than its own linear layer."""
    layer = find_moe(tiny_model("qwen3_moe")).layers[0]
    layer.experts.register_forward_pre_hook(
        _watch(layer, torch.tensor([3]), torch.tensor([1])), with_kwargs=True
    )
    hidden, weights = torch.zeros(1, 32), torch.ones(1, 2)
    layer.experts(hidden, torch.tensor([[1, 2]]), weights)
    with pytest.raises(HarnessError, match="layer 1 chose an expert that was masked"):
        layer.experts(hidden, torch.tensor([[1, 3]]), weights)
    with pytest.raises(HarnessError, match="layer 1 did not choose an expert that was activated"):
        layer.experts(hidden, torch.tensor([[0, 2]]), weights)


@pytest.mark.parametrize(
    "model_type",
    [
        "axk2",
        "deepseek_v3",
        "dots1",
        "ernie4_5_moe",
        "glm4_moe",
        "kimi_linear",
        "lfm2_moe",
        "minimax_m2",
        "nemotron_h",
    ],
)
def test_a_bias_that_outweighs_every_score_keeps_no_masked_expert_in(model_type):
    """These routers choose by score plus bias; some set whole groups of experts to zero in between."""
    skip_if_missing(model_type)
    model = build(model_type)
    moe = find_moe(model)
    biases = [
        value
        for name, value in [*model.named_parameters(), *model.named_buffers()]
        if name.endswith(("e_score_correction_bias", "expert_bias"))
    ]
    assert biases
    for place, value in enumerate(biases):
        generator = torch.Generator().manual_seed(place)
        value.copy_(torch.randn(value.shape, generator=generator) - 0.5)
        value[..., 1] = 10.0
    before = [value.clone() for value in biases]
    masked = {1, 2}
    assert 1 in set(routed(moe).flatten().tolist())
    with steered(moe, select(*((layer.index, expert) for layer in moe.layers for expert in masked))):
        assert not masked & set(routed(moe).flatten().tolist())
    assert all(torch.equal(value, own) for value, own in zip(biases, before, strict=True))
    assert 1 in set(routed(moe).flatten().tolist())


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name != "deepseek_v4"])
def test_activated_experts_are_in_the_top_k_of_every_token_and_silenced_ones_in_none(model_type):
    """Watched by capture; biases and groups of experts would choose otherwise."""
    skip_if_missing(model_type)
    model = build(model_type)
    for place, (name, value) in enumerate([*model.named_parameters(), *model.named_buffers()]):
        if name.endswith(("e_score_correction_bias", "expert_bias")):
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(place)))
    moe = find_moe(model)
    layers = [layer for layer in moe.layers if layer.router is not None]
    if not layers:
        pytest.skip("its router has no row per expert, which is refused")
    before, last = routed(moe), layers[-1].index
    # Of different groups, where the experts are in groups of which a token gets one.
    activated, silenced = {layer.index: [1, 6] for layer in layers}, {last: [2]}
    with steered(moe, silenced, activated):
        chosen = dict(zip(moe.layer_indices, routed(moe), strict=True))
    for layer in layers:
        for expert in activated[layer.index]:
            assert (chosen[layer.index] == expert).any(dim=-1).all(), layer.name
    assert not (chosen[last] == 2).any()
    assert torch.equal(routed(moe), before)


def test_a_router_that_looks_experts_up_by_token_says_that_it_cannot_be_steered():
    """The first layers of deepseek_v4 do."""
    skip_if_missing("deepseek_v4")
    moe = find_moe(build("deepseek_v4"))
    first = moe.layers[0].index
    with (
        pytest.raises(
            VariantImpossibleError, match=f"layer {first} did not choose an expert that was activated"
        ),
        steered(moe, {}, {first: [1]}),
    ):
        routed(moe)


def test_an_activated_expert_counts_as_much_as_the_likeliest(tiny_model):
    """As SteerMoE has it: its score is slightly above the largest."""
    moe = find_moe(tiny_model("mixtral"))
    layer, weights = moe.layers[-1], []
    hook = layer.experts.register_forward_pre_hook(lambda module, args: weights.append(args[1:]))
    with steered(moe, {}, {layer.index: [3]}), torch.inference_mode():
        moe.model(IDS, use_cache=False)
    hook.remove()
    ((chosen, counts),) = weights
    assert (counts[chosen == 3] > 0.5).all()
    assert (counts[chosen == 3] < 0.6).any()


def test_masks_that_cannot_be_kept_have_a_reason(tiny_model):
    moe = find_moe(tiny_model("qwen3_moe"))
    for silenced, activated, reason in (
        ({}, {2: [1, 2, 3]}, "layer 2 would activate 3 experts, more than the 2 a token gets"),
        ({1: [4]}, {1: [4, 5]}, "layer 1 would both silence and activate expert 4"),
    ):
        assert why_not_steerable(moe, silenced, activated) == reason
