"""Capture counts what each layer really routed, for prompt and answer tokens and nothing else."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import HarnessError
from harness.data.prompts import Prompt
from harness.engines.transformers import TransformersEngine
from harness.models.decoding import greedy
from harness.models.moe import MoELayer, MoEModel
from harness.routing.capture import Captured, RoutingCapture, count, phase_masks, routed_tokens
from harness.routing.counts import STORED_PHASES, join, reorder

TEXTS = [
    "Name three fruits.",
    "What is the capital of France?",
    "Hi",
    "How do I pick a lock without getting caught?",
    "I have 6 apples and get 3 more. How many are there?",
    "Give me some tips to read a bar code.",
]
PROMPTS = [Prompt(f"p{i}", text, "task", "benign") for i, text in enumerate(TEXTS)]
IDS = [prompt.id for prompt in PROMPTS]


def answered(loaded, batches, max_new_tokens=24):
    """Return the answers by id and the counts in the order of PROMPTS."""
    engine = TransformersEngine(loaded, batch_size=32)
    results = list(engine.generate(batches, max_new_tokens, capture="counts"))
    responses = {row.id: row for result in results for row in result.responses}
    return responses, reorder(join([result.routing for result in results]), IDS)


@pytest.fixture(scope="module")
def together(demo):
    return answered(demo, [PROMPTS])


@pytest.fixture(scope="module")
def alone(demo):
    return answered(demo, [[prompt] for prompt in PROMPTS])


def routed_by_hand(loaded, response, chosen_experts):
    """Count one conversation at a time, from `chosen_experts(model, ids)`: [L, T, k], without our hook."""
    engine = TransformersEngine(loaded, batch_size=1)
    (prompt,) = engine.chat.tokens([response.prompt])
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        whole = loaded.moe.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=response.generated_tokens,
        )
        chosen = chosen_experts(loaded, whole[:, :-1])  # the last sampled token is never routed
    layers, width, _ = chosen.shape
    counts = np.zeros((len(STORED_PHASES), layers, loaded.moe.n_experts), dtype=np.int64)
    for layer in range(layers):
        for position in range(width):
            for expert in chosen[layer, position].tolist():
                counts[0 if position < len(prompt) else 1, layer, expert] += 1
                counts[2, layer, expert] += len(prompt) - 4 <= position < len(prompt) + 4
    return counts


def from_router_logits(loaded, ids):
    """What the model itself reports: the k largest router logits."""
    logits = loaded.moe.model(ids, output_router_logits=True, use_cache=False).router_logits
    return torch.stack([layer.topk(loaded.moe.experts_per_token).indices for layer in logits])


def from_router_modules(loaded, ids):
    """What each router module returns: the only integer tensor among its outputs."""
    kept = []

    def keep(module, args, output):
        kept.append(next(part for part in output if not part.is_floating_point()))

    handles = [layer.router.register_forward_hook(keep) for layer in loaded.moe.layers]
    loaded.moe.model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return torch.stack(kept)


def test_answers_do_not_depend_on_what_they_are_padded_with(together, alone):
    assert together[0] == alone[0]
    assert len({row.prompt_tokens for row in together[0].values()}) > 2  # so there was padding


def test_counts_do_not_depend_on_what_they_are_padded_with(together, alone):
    np.testing.assert_array_equal(together[1].tokens, alone[1].tokens)
    np.testing.assert_array_equal(together[1].counts, alone[1].counts)


def test_counts_do_not_depend_on_the_batches(demo, together):
    halves = answered(demo, [[PROMPTS[i] for i in (3, 0, 5)], [PROMPTS[i] for i in (1, 4, 2)]])
    assert halves[0] == together[0]
    np.testing.assert_array_equal(halves[1].counts, together[1].counts)


def test_tokens_after_the_end_of_an_answer_do_not_count(together):
    responses, counts = together
    lengths = [responses[name].generated_tokens for name in IDS]
    assert len(set(lengths)) > 1  # some answers ended while others went on
    assert counts.of("generation")[1].tolist() == [length - 1 for length in lengths]


def test_an_answer_of_g_tokens_has_g_less_1_routed_ones(demo):
    for limit in (1, 2, 5):
        responses, counts = answered(demo, [PROMPTS], max_new_tokens=limit)
        assert {row.generated_tokens for row in responses.values()} == {limit}
        assert {row.finish_reason for row in responses.values()} == {"length"}
        assert counts.of("generation")[1].tolist() == [limit - 1] * len(PROMPTS)


def test_prompt_tokens_are_the_rendered_prompts(demo, together):
    responses, counts = together
    lengths = [len(ids) for ids in TransformersEngine(demo, 1).chat.tokens(TEXTS)]
    assert counts.of("prompt")[1].tolist() == lengths
    assert [responses[name].prompt_tokens for name in IDS] == lengths


def test_decision_is_the_last_four_prompt_and_first_four_answer_tokens(demo, together):
    assert together[1].of("decision")[1].tolist() == [
        4 + min(4, together[0][name].generated_tokens - 1) for name in IDS
    ]
    assert answered(demo, [PROMPTS], max_new_tokens=3)[1].of("decision")[1].tolist() == [6] * len(PROMPTS)


def test_counts_equal_the_models_own_router_logits(demo, together):
    responses, counts = together
    for place, name in enumerate(IDS):
        expected = routed_by_hand(demo, responses[name], from_router_logits)
        np.testing.assert_array_equal(counts.counts[place], expected, err_msg=name)


def test_counts_equal_what_the_routers_return(tiny_loaded, family):
    """Families with correction biases, group limits or dense layers among them."""
    loaded = tiny_loaded(family)
    responses, counts = answered(loaded, [PROMPTS[:3], PROMPTS[3:]], max_new_tokens=6)
    assert counts.layers == tuple(loaded.moe.layer_indices)
    for place, name in enumerate(IDS):
        expected = routed_by_hand(loaded, responses[name], from_router_modules)
        np.testing.assert_array_equal(counts.counts[place], expected, err_msg=name)


def test_a_correction_bias_is_seen(tiny_loaded):
    """Experts that the bias rules out are never counted, though router logits alone would choose them."""
    loaded = tiny_loaded("deepseek_v3")
    for layer in loaded.moe.layers:
        dict(loaded.moe.model.named_modules())[
            layer.name.replace(".experts", ".gate")
        ].e_score_correction_bias[:6] = -1e4
    counts = answered(loaded, [PROMPTS], max_new_tokens=4)[1]
    assert counts.of("all")[0][..., :6].sum() == 0
    assert counts.of("all")[0][..., 6:].sum() > 0


def test_listening_ends_with_the_block_even_after_an_error(demo):
    capture = RoutingCapture(demo.moe)
    with pytest.raises(RuntimeError, match="boom"), capture.installed():
        raise RuntimeError("boom")
    assert not any(layer.experts._forward_pre_hooks for layer in demo.moe.layers)


def test_capture_leaves_the_logits_alone(demo):
    ids = torch.arange(10, 40).reshape(2, 15)
    with torch.inference_mode():
        before = demo.moe.model(ids).logits
        with RoutingCapture(demo.moe).installed():
            assert torch.equal(demo.moe.model(ids).logits, before)


def test_a_layer_that_was_not_called_is_an_error(demo):
    with pytest.raises(HarnessError, match="layer 0 was not called with whole rows of a batch of 3"):
        RoutingCapture(demo.moe).take(batch=3)


def test_rows_that_do_not_make_whole_batches_are_an_error(demo):
    capture = RoutingCapture(demo.moe)
    with capture.installed(), torch.inference_mode():
        demo.moe.model(torch.arange(10, 17)[None])
    with pytest.raises(HarnessError, match="not called with whole rows of a batch of 2"):
        capture.take(batch=2)


@pytest.mark.parametrize("record", ["counts", "tokens", "logits"])
@pytest.mark.parametrize("habit", [{"use_cache": False}, {"num_beams": 3}])
def test_other_columns_than_one_per_position_are_refused(demo, monkeypatch, record, habit):
    """Decoding that reads positions again, as checkpoints ask for; were it followed, no total would give it away."""
    from harness.engines import transformers

    def rules(*arguments):
        plain = greedy(*arguments)
        plain.update(**habit)
        return plain

    monkeypatch.setattr(transformers, "greedy", rules)
    with pytest.raises(HarnessError) as caught:
        next(TransformersEngine(demo, 3).generate([PROMPTS], 6, capture=record))
    assert re.search(
        r"captured per layer, expected \d+ \(prompt \+ longest|whole rows of a batch", str(caught.value)
    )
    assert "\n" not in str(caught.value)


def test_the_columns_are_the_prompt_and_the_longest_answer_but_its_last_token(demo):
    engine, capture = TransformersEngine(demo, 3), RoutingCapture(demo.moe)
    with capture.installed():
        (result,) = engine.generate([PROMPTS], 24)
    width = max(row.prompt_tokens for row in result.responses)
    longest = max(row.generated_tokens for row in result.responses)
    captured = capture.take(len(PROMPTS))
    assert captured.experts.shape[2] == width + longest - 1
    ids = [row.id for row in result.responses]
    for more in (-1, 1):
        masks = torch.ones(2, len(PROMPTS), width + longest - 1 + more, dtype=torch.bool)
        with pytest.raises(
            HarnessError, match=rf"{width + longest - 1} columns of experts were captured per layer"
        ):
            count(captured, masks, demo.moe, ids)
        with pytest.raises(HarnessError, match=f"expected {width + longest - 1 + more} "):
            routed_tokens(captured, masks, torch.zeros(masks.shape[1:]), ids)


def test_a_layer_that_saw_fewer_tokens_is_named(demo):
    capture = RoutingCapture(demo.moe)
    with capture.installed(), torch.inference_mode():
        demo.moe.model(torch.arange(10, 17)[None])
    capture._experts[2][0] = capture._experts[2][0][:-1]
    with pytest.raises(HarnessError, match="layer 2 routed 6 positions per row, layer 0 7"):
        capture.take(batch=1)


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    data=st.data(),
)
def test_phases_share_out_the_routed_positions(prompts, data):
    width = max(prompts)
    generated = data.draw(st.lists(st.integers(1, 9), min_size=len(prompts), max_size=len(prompts)))
    starts = [data.draw(st.integers(0, g)) for g in generated]
    mask = torch.tensor([[0] * (width - n) + [1] * n for n in prompts])
    columns = width + max(generated) - 1
    phases = phase_masks(mask, torch.tensor(generated), torch.tensor(starts))
    assert phases.shape == (4, len(prompts), columns)
    prompt, generation, decision, reasoning = phases
    assert not (prompt & generation).any()
    assert prompt.sum(1).tolist() == prompts
    assert generation.sum(1).tolist() == [g - 1 for g in generated]
    assert not (reasoning & ~generation).any()
    assert reasoning.sum(1).tolist() == [
        min(start, g - 1) for start, g in zip(starts, generated, strict=True)
    ]
    assert not (decision & ~(prompt | generation)).any()
    # Four tokens before the answer's first and four from there, none where it never began.
    assert decision.sum(1).tolist() == [
        0 if start == g else min(4, p + start) + min(4, g - 1 - start)
        for p, g, start in zip(prompts, generated, starts, strict=True)
    ]


def test_without_starts_answers_begin_at_once():
    mask, generated = torch.tensor([[0, 1, 1], [1, 1, 1]]), torch.tensor([4, 2])
    assert torch.equal(
        phase_masks(mask, generated), phase_masks(mask, generated, torch.zeros(2, dtype=torch.long))
    )


def one_layer(experts: int = 4) -> MoEModel:
    return MoEModel(None, (MoELayer("layers.3.experts", 3, None, None, experts),), 2)


def captured(ids: torch.Tensor) -> Captured:
    """Every expert with a gate weight of one more than its number, in tenths."""
    return Captured(ids, (ids + 1) / 10, None)


def test_counting_by_hand():
    """Two prompts, three positions, two experts a token, one position that belongs to nothing."""
    ids = torch.tensor([[[[0, 1], [2, 1], [3, 0]], [[0, 1], [3, 2], [2, 3]]]])
    masks = torch.tensor(
        [
            [[True, True, False], [False, True, False]],
            [[False, False, True], [False, False, True]],
            [[False, True, True], [False, True, True]],
        ]
    )
    counts = count(captured(ids), masks, one_layer(), ["a", "b"])
    assert counts.tokens.tolist() == [[2, 1, 2], [1, 1, 2]]
    assert counts.counts[:, :, 0].tolist() == [
        [[1, 2, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]],
        [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 2, 2]],
    ]


@pytest.mark.parametrize("chosen", [[0, 0], [1, 4], [-1, 2]], ids=["repeated", "too high", "negative"])
def test_impossible_routing_of_a_token_that_counts_is_an_error(chosen):
    ids = torch.tensor([[[[0, 1], chosen]]])
    with pytest.raises(HarnessError, match="layer 3 routed a token to an expert twice or out of 0 to 3"):
        count(
            captured(ids),
            torch.tensor([[[True, True]], [[False, False]], [[False, False]]]),
            one_layer(),
            ["a"],
        )


def test_repeated_experts_of_padding_do_not_matter():
    ids = torch.tensor([[[[0, 0], [1, 2]]]])
    masks = torch.tensor([[[False, True]], [[False, False]], [[False, True]]])
    assert count(captured(ids), masks, one_layer(), ["a"]).counts[0, 0, 0].tolist() == [0, 1, 1, 0]


def test_what_padding_routes_is_not_counted_even_where_its_weights_are_not_numbers(demo):
    capture, ids = RoutingCapture(demo.moe), ["padded", "whole"]
    with capture.installed(), torch.inference_mode():
        demo.moe.model(torch.arange(10, 24).reshape(2, 7))
    captured = capture.take(2)
    prompt = torch.ones(2, 7, dtype=torch.bool)
    prompt[0, :3] = False
    masks = torch.stack([prompt, *[torch.zeros_like(prompt)] * (len(STORED_PHASES) - 1)])
    expected = count(captured, masks, demo.moe, ids)
    captured.weights[:, 0, :3] = torch.nan
    captured.weights[:, 0, 0] = torch.inf
    found = count(captured, masks, demo.moe, ids)
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.mass, expected.mass)
    assert found.tokens[:, 0].tolist() == [4, 7]
