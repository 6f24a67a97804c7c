"""The bank trains the selected experts exactly as a full gradient would, and leaves no trace in the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from moe_families import FAMILIES, build, skip_if_missing
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from harness.base.errors import BadInputError
from harness.models.moe import Expert, find_moe
from harness.training import grouped
from harness.training.bank import ExpertBank
from harness.training.examples import Example, collate
from harness.training.loop import answer_loss

EXAMPLES = [
    Example(prompt=tuple(range(10, 30)), answer=(7, 8, 9, 2), aim="refuse"),
    Example(prompt=tuple(range(40, 47)), answer=tuple(range(60, 70)), aim="retain"),
    Example(prompt=tuple(range(90, 102)), answer=(5, 2), aim="refuse"),
]


def some_experts(moe):
    """Three experts of the first MoE layer, four of the last."""
    first, last = moe.layer_indices[0], moe.layer_indices[-1]
    return [Expert(first, e) for e in (1, 4, 6)] + [Expert(last, e) for e in (0, 2, 5, 7)]


def logits_of(model):
    ids = torch.arange(20, 52).reshape(2, 16)
    with torch.inference_mode():
        return model(ids).logits.clone()


def reference_loss(model):
    """Cross-entropy of the answer tokens, one example at a time, with nothing of ours in the way."""
    total = 0
    for example in EXAMPLES:
        ids = torch.tensor([[*example.prompt, *example.answer]])
        logits = model(ids, use_cache=False).logits[0, len(example.prompt) - 1 : -1]
        total = total + functional.cross_entropy(logits, torch.tensor(example.answer), reduction="sum")
    return total


def test_with_an_untrained_bank_the_model_says_the_same(tiny_model, family):
    model = tiny_model(family)
    before = logits_of(model)
    with ExpertBank(find_moe(model), some_experts(find_moe(model))).installed():
        torch.testing.assert_close(logits_of(model), before, rtol=1e-4, atol=1e-5)


def test_loss_and_gradients_equal_those_of_an_eager_model_with_all_gradients(tiny_model, family):
    model, eager = tiny_model(family), tiny_model(family)
    bank = ExpertBank(find_moe(model), some_experts(find_moe(model)))
    with bank.installed():
        loss = answer_loss(model, collate(EXAMPLES, pad=0, device=torch.device("cpu")))
        loss.backward()

    eager.set_experts_implementation("eager")
    eager.requires_grad_(True)
    expected = reference_loss(eager)
    expected.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for index, layer in bank.layers.items():
        reference = find_moe(eager).layer(index)
        assert set(layer.weights) == set(dict(reference.experts.named_parameters()))
        for name, weight in layer.weights.items():
            gradient = reference.weight(name).grad[layer.experts]
            assert gradient.abs().max() > 1e-4
            torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-5)


def full_gradients(eager):
    """Loss of two equally long examples, and the gradients of all weights, in transformers' own eager code."""
    eager.set_experts_implementation("eager")
    eager.requires_grad_(True)
    ids = torch.tensor([[*example.prompt, *example.answer] for example in EQUALLY_LONG])
    logits = eager(input_ids=ids, use_cache=False).logits
    loss = sum(
        functional.cross_entropy(
            logits[row, len(example.prompt) - 1 : -1], torch.tensor(example.answer), reduction="sum"
        )
        for row, example in enumerate(EQUALLY_LONG)
    )
    loss.backward()
    return loss.detach(), find_moe(eager)


def check_against_full_gradients(model, eager):
    bank = ExpertBank(find_moe(model), some_experts(find_moe(model)))
    with bank.installed():
        loss = answer_loss(model, collate(EQUALLY_LONG, pad=0, device=torch.device("cpu")))
        loss.backward()
    expected, reference = full_gradients(eager)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-6, atol=1e-5)
    for index, layer in bank.layers.items():
        for name, weight in layer.weights.items():
            gradient = reference.layer(index).weight(name).grad[layer.experts]
            largest = gradient.abs().max()
            assert largest > 1e-3
            # float32 rounding of sums in another order; a lost or doubled term is thousands of times larger.
            assert (weight.grad - gradient).abs().max() < 5e-5 * largest


# Equally long, so that no padding is needed: the answers of some families depend on it.
EQUALLY_LONG = [EXAMPLES[0], Example(tuple(range(40, 54)), tuple(range(60, 70)), aim="retain")]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_familys_loss_and_gradients_equal_those_of_its_eager_code(model_type):
    """Every layout: gate and up concatenated, interleaved or none; transposed; biases; norms; shared experts."""
    skip_if_missing(model_type)
    check_against_full_gradients(build(model_type), build(model_type))


def test_a_clamped_gate_is_clamped_in_the_bank_too(tiny_model):
    """With gpt_oss's own limit of 7, random weights never reach the clamp."""
    models = tiny_model("gpt_oss"), tiny_model("gpt_oss")
    unclamped = logits_of(models[0])
    for model in models:
        for layer in find_moe(model).layers:
            layer.experts.limit = 0.3
    assert (logits_of(models[0]) - unclamped).abs().max() > 0.01
    check_against_full_gradients(*models)


def test_a_bank_computes_in_the_models_dtype_and_trains_in_float32(tiny_model):
    model = tiny_model("qwen3_moe").bfloat16()
    moe = find_moe(model)
    bank = ExpertBank(moe, some_experts(moe))
    before = logits_of(model)
    with bank.installed():
        torch.testing.assert_close(logits_of(model), before)
        answer_loss(model, collate(EXAMPLES, pad=0, device=torch.device("cpu"))).backward()
    assert (
        {p.dtype for p in bank.parameters()} == {p.grad.dtype for p in bank.parameters()} == {torch.float32}
    )


class Operations(TorchDispatchMode):
    """Names of all operations inside the block."""

    def __enter__(self):
        self.names = set()
        return super().__enter__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.__name__.partition(".")[0])
        return function(*args, **(kwargs or {}))


# Those whose result's value or size only the device knows: there the host would wait for it.
WAITS = {"_local_scalar_dense", "item", "nonzero", "bincount", "masked_select", "unique2"}


def test_nothing_in_the_banks_forward_or_backward_waits_for_the_device(tiny_model, monkeypatch):
    monkeypatch.setattr(grouped, "_is_read_for_free", lambda values: False)  # as on a GPU
    moe = find_moe(tiny_model("gpt_oss"))  # biases and all
    hidden = torch.randn(20, 32, requires_grad=True)
    chosen, weights = torch.rand(20, 8).argsort(dim=1)[:, :2], torch.rand(20, 2)
    with ExpertBank(moe, [Expert(0, 1), Expert(0, 5)]).installed(), Operations() as seen:
        moe.layers[0].experts(hidden, chosen, weights).sum().backward()
    assert "_grouped_mm" in seen.names
    assert not seen.names & WAITS


def test_a_token_that_is_routed_to_an_expert_twice_is_an_error_not_a_loss_of_rows(tiny_model):
    moe = find_moe(tiny_model("mixtral"))
    with (
        ExpertBank(moe, [Expert(0, 3)]).installed(),
        pytest.raises(RuntimeError, match="same expert twice"),
    ):
        moe.layers[0].experts(torch.randn(2, 32), torch.tensor([[3, 3], [3, 3]]), torch.rand(2, 2))


def test_switched_off_the_model_speaks_as_before(tiny_model):
    model = tiny_model("qwen3_moe")
    moe = find_moe(model)
    bank = ExpertBank(moe, some_experts(moe))
    before = logits_of(model)
    with torch.no_grad():
        for parameter in bank.parameters():
            parameter.mul_(2)
    with bank.installed():
        trained = logits_of(model)
        with bank.switched_off():
            assert torch.equal(logits_of(model), before)
            with pytest.raises(BadInputError, match="switched off already"), bank.switched_off():
                pass
        assert torch.equal(logits_of(model), trained)
    with pytest.raises(BadInputError, match="not installed"), bank.switched_off():
        pass


def test_frozen_weights_get_no_gradient(tiny_model, family):
    model = tiny_model(family)
    bank = ExpertBank(find_moe(model), some_experts(find_moe(model)))
    with bank.installed():
        answer_loss(model, collate(EXAMPLES, pad=0, device=torch.device("cpu"))).backward()
    assert not any(value.requires_grad or value.grad is not None for value in model.parameters())


def test_a_bank_value_stands_in_for_the_experts_own(tiny_model, family):
    model, overwritten = tiny_model(family), tiny_model(family)
    moe = find_moe(model)
    bank = ExpertBank(moe, some_experts(moe))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for index, layer in bank.layers.items():
            for name, weight in layer.weights.items():
                weight.copy_(torch.randn(weight.shape, generator=generator))
                find_moe(overwritten).layer(index).weight(name)[layer.experts] = weight
    with bank.installed():
        changed = logits_of(model)
    torch.testing.assert_close(changed, logits_of(overwritten), rtol=1e-4, atol=1e-4)
    assert (changed - logits_of(model)).abs().max() > 0.1


def test_after_the_block_the_model_is_as_before(tiny_model, family):
    model = tiny_model(family)
    moe = find_moe(model)
    before, weights = logits_of(model), {k: v.clone() for k, v in model.state_dict().items()}
    implementation = model.config._experts_implementation
    attributes = [set(layer.experts.__dict__) for layer in moe.layers]

    def fail():
        assert model.config._experts_implementation != implementation
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), ExpertBank(moe, some_experts(moe)).installed():
        fail()
    assert model.config._experts_implementation == implementation
    assert [set(layer.experts.__dict__) for layer in moe.layers] == attributes
    assert torch.equal(logits_of(model), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layer", [1, 2])
def test_a_second_bank_is_refused_and_the_first_goes_on(tiny_model, layer):
    model = tiny_model("qwen3_moe")
    moe = find_moe(model)
    first, second = ExpertBank(moe, [Expert(1, 0)]), ExpertBank(moe, [Expert(layer, 3)])
    with torch.no_grad():
        first.layers[1].weights["down_proj"].zero_()
    with first.installed():
        before = logits_of(model)
        with pytest.raises(BadInputError, match="another expert bank"), second.installed():
            pass
        assert torch.equal(logits_of(model), before)


def test_a_bank_can_be_installed_again(tiny_model):
    model = tiny_model("mixtral")
    bank = ExpertBank(find_moe(model), [Expert(0, 0)])
    base, found = logits_of(model), []
    with torch.no_grad():
        bank.layers[0].weights["down_proj"].zero_()
    for _ in range(2):
        with bank.installed():
            found.append(logits_of(model))
    assert torch.equal(*found)
    assert not torch.equal(found[0], base)


def test_an_expert_that_is_named_twice_is_trained_once(tiny_model):
    moe = find_moe(tiny_model("mixtral"))
    bank = ExpertBank(moe, [Expert(2, 5), Expert(0, 3), Expert(2, 5)])
    assert {index: layer.experts for index, layer in bank.layers.items()} == {0: [3], 2: [5]}
    assert bank.size == 2 * (64 * 32 + 32 * 32)  # gate and up, and down, of two experts


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        ([], "no experts are selected"),
        ([Expert(1, 8)], "layer 1 has no expert 8"),
        ([Expert(1, -1)], "layer 1 has no expert -1"),
        ([Expert(0, 0)], "layer 0 has no experts"),  # a dense layer
        ([Expert(9, 0)], "layer 9 has no experts"),
    ],
)
def test_experts_that_cannot_be_trained_are_refused(tiny_model, experts, message):
    with pytest.raises(BadInputError, match=message):
        ExpertBank(find_moe(tiny_model("qwen3_moe")), experts)


@pytest.fixture(scope="module")
def layer(tiny_model):
    model = tiny_model("gpt_oss")
    return find_moe(model)


@settings(max_examples=40, deadline=None)
@given(
    selected=st.sets(st.integers(0, 7), min_size=1),
    routing=st.lists(
        st.lists(st.integers(0, 7), min_size=2, max_size=2, unique=True), min_size=1, max_size=9
    ),
)
def test_any_routing_over_any_selection_gives_what_the_experts_themselves_give(layer, selected, routing):
    """Also when no token, or every token, goes to a selected expert."""
    experts = layer.layers[0].experts
    generator = torch.Generator().manual_seed(len(routing))
    hidden = torch.randn(len(routing), 32, generator=generator)
    chosen, weights = torch.tensor(routing), torch.rand(len(routing), 2, generator=generator)
    with torch.inference_mode():
        expected = experts(hidden, chosen, weights)
        with ExpertBank(layer, [Expert(0, e) for e in selected]).installed():
            found = experts(hidden, chosen, weights)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_bank_no_token_is_routed_to_changes_nothing_and_gets_no_gradient(tiny_model):
    moe = find_moe(tiny_model("mixtral"))
    hidden = torch.randn(6, 32, requires_grad=True)
    chosen, weights = torch.tensor([[0, 1]]).expand(6, 2), torch.rand(6, 2)
    own = moe.layers[0].experts(hidden, chosen, weights)
    bank = ExpertBank(moe, [Expert(0, 3), Expert(0, 2)])
    with bank.installed():
        out = moe.layers[0].experts(hidden, chosen, weights)
        out.sum().backward()
    torch.testing.assert_close(out, own)
    assert not any(layer.gradient_sizes().any() for layer in bank.layers.values())
