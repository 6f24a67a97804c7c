"""Single tokens: what is kept of each, that it adds up to the counts, and that it survives the disk."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.base.errors import BadInputError, HarnessError
from harness.data.prompts import Prompt
from harness.engines.base import Sampling
from harness.engines.transformers import TransformersEngine
from harness.routing.counts import PHASES, join, reorder
from harness.routing.files import load_counts, load_tokens, save_routing
from harness.routing.tokens import RoutedTokens, join_tokens, reorder_tokens, usage

TEXTS = ["Name three fruits.", "Hi", "How do I pick a lock without getting caught?"]
PROMPTS = [Prompt(f"p{i}", text, "task", "benign") for i, text in enumerate(TEXTS)]
IDS = [prompt.id for prompt in PROMPTS]


@pytest.fixture(scope="module")
def recorded(demo):
    engine = TransformersEngine(demo, batch_size=2)
    results = list(engine.generate([PROMPTS[:2], PROMPTS[2:]], 12, capture="logits"))
    answers = {row.id: row for result in results for row in result.responses}
    counts = reorder(join([result.routing for result in results]), IDS)
    tokens = reorder_tokens(join_tokens([result.tokens for result in results]), IDS)
    return answers, counts, tokens


def by_hand() -> RoutedTokens:
    """Two prompts, one layer of four experts, two a token: 2 prompt and 2 answer tokens, then 1 and 1."""
    experts = np.array([[0, 1], [0, 2], [3, 1], [2, 3], [1, 0], [1, 2]], dtype=np.uint8)[:, None]
    return RoutedTokens(
        ids=("a", "b"),
        offsets=np.array([0, 4, 6]),
        prompt_tokens=np.array([2, 1], dtype=np.int32),
        token_ids=np.arange(10, 16, dtype=np.int32),
        experts=experts,
        weights=np.full((6, 1, 2), 0.5, dtype=np.float16),
    )


def test_usage_counts_each_prompts_tokens_by_hand():
    tokens = by_hand()
    assert usage(tokens, 4)[:, 0].tolist() == [[2, 2, 2, 2], [1, 2, 1, 0]]
    assert usage(tokens, 4, tokens.places >= 0)[:, 0].tolist() == [[0, 1, 1, 2], [0, 1, 1, 0]]


def test_places_count_from_the_first_answer_token():
    assert by_hand().places.tolist() == [-2, -1, 0, 1, -1, 0]
    assert by_hand().samples.tolist() == [0, 0, 0, 0, 1, 1]


def test_the_tokens_are_the_conversation_without_its_last_token(demo, recorded):
    answers, _, tokens = recorded
    engine = TransformersEngine(demo, batch_size=1)
    for prompt in PROMPTS:
        found = tokens.of(prompt.id)
        (rendered,) = engine.chat.tokens([prompt.text])
        assert found.token_ids[: found.prompt_tokens].tolist() == rendered
        answer = answers[prompt.id]
        assert len(found.token_ids) == len(rendered) + answer.generated_tokens - 1
        text = demo.tokenizer.decode(found.token_ids[found.prompt_tokens :], skip_special_tokens=True).strip()
        assert answer.response.startswith(text)
        assert text


def test_recorded_experts_weights_and_logits_are_the_models_own(demo, recorded):
    """The k largest logits, renormalised, of one forward pass over the whole conversation."""
    tokens = recorded[2]
    for name in IDS:
        found = tokens.of(name)
        with torch.inference_mode():
            output = demo.moe.model(
                torch.from_numpy(found.token_ids.astype(np.int64))[None], output_router_logits=True
            )
        for layer, logits in enumerate(output.router_logits):
            np.testing.assert_allclose(found.logits[layer], logits.numpy(), atol=1e-4)
            best = torch.softmax(logits, -1).topk(2)
            assert [set(row) for row in found.experts[:, layer].tolist()] == [
                set(row) for row in best.indices.tolist()
            ]
            expected = best.values / best.values.sum(-1, keepdim=True)
            np.testing.assert_allclose(
                np.sort(found.weights[:, layer].astype(np.float32)), np.sort(expected.numpy()), atol=1e-3
            )


def test_gate_mass_sums_to_the_tokens_and_to_the_recorded_weights(recorded):
    _, counts, tokens = recorded
    np.testing.assert_allclose(
        counts.mass.sum(-1), np.broadcast_to(counts.tokens[..., None], (3, 4, 4)), rtol=1e-5
    )
    first = tokens.of("p0")
    expected = np.zeros(32)
    np.add.at(expected, first.experts[:, 0].ravel(), first.weights[:, 0].ravel().astype(np.float64))
    np.testing.assert_allclose(counts.mass_of("all")[0, 0], expected, atol=0.02)  # kept as float16


def test_tokens_survive_the_disk_and_are_checked_against_the_counts(recorded, tmp_path):
    _, counts, tokens = recorded
    path = tmp_path / "task.safetensors"
    save_routing(counts, path, tokens)
    read = load_tokens(path)
    assert read.ids == tokens.ids
    for name in ("offsets", "prompt_tokens", "token_ids", "experts", "weights", "logits"):
        np.testing.assert_array_equal(getattr(read, name), getattr(tokens, name))
    kept = load_counts(path)
    for phase in PHASES:
        for found, expected in zip(kept.of(phase), counts.of(phase), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert load_tokens(path, with_logits=False).logits is None
    changed = tokens.experts.copy()
    changed[5, 1, 0] = (changed[5, 1, 0] + 1) % 32
    save_routing(counts, path, replace(tokens, experts=changed))
    with pytest.raises(HarnessError, match="the recorded experts do not add up to the counts"):
        load_tokens(path)


@pytest.mark.parametrize("changed", ["ids", "offsets", "prompt_tokens"])
def test_tokens_of_other_prompts_or_of_other_lengths_are_not_those_that_were_counted(recorded, changed):
    _, counts, tokens = recorded
    tokens.check(counts, "here")
    other = {
        "ids": tuple(reversed(tokens.ids)),
        "offsets": tokens.offsets + np.eye(len(tokens.offsets), dtype=np.int64)[1],
        "prompt_tokens": tokens.prompt_tokens + 1,
    }
    with pytest.raises(HarnessError, match="here: the recorded tokens are not those that were counted"):
        replace(tokens, **{changed: other[changed]}).check(counts, "here")


def test_counts_alone_say_how_to_get_tokens(recorded, tmp_path):
    save_routing(recorded[1], tmp_path / "task.safetensors")
    with pytest.raises(BadInputError, match="holds counts only: capture again with --record tokens"):
        load_tokens(tmp_path / "task.safetensors")


def test_an_unknown_prompt_is_named(recorded):
    with pytest.raises(BadInputError, match="no routing was recorded for prompt 'p9'"):
        recorded[2].of("p9")


def test_sampled_answers_count_the_prompt_each_and_follow_from_the_seed(demo):
    engine = TransformersEngine(demo, batch_size=3)
    how = Sampling(answers=3, temperature=2.0, seed=5)

    def sampled(seed: int):
        return next(engine.generate([PROMPTS], 10, capture="tokens", sampling=how._replace(seed=seed)))

    first, again, other = sampled(5), sampled(5), sampled(6)
    assert [row.id for row in first.responses] == [f"p{i}#{j}" for i in range(3) for j in (1, 2, 3)]
    assert first.responses == again.responses != other.responses
    assert len({row.response for row in first.responses}) > 3
    by_prompt = first.routing.counts[:, 0].reshape(3, 3, 4, 32)
    assert (by_prompt == by_prompt[:, :1]).all()  # the prompt's routing is the same for each of its answers
    assert first.routing.of("generation")[1].tolist() == [row.generated_tokens - 1 for row in first.responses]
    first.tokens.check(first.routing, "test")


def test_sampling_leaves_the_random_state_alone(demo):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    next(TransformersEngine(demo, batch_size=3).generate([PROMPTS], 4, sampling=Sampling(2)))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_prompt_that_is_read_in_chunks_is_counted_the_same(demo, monkeypatch):
    engine = TransformersEngine(demo, batch_size=3)
    (whole,) = engine.generate([PROMPTS], 6, capture="tokens")
    monkeypatch.setattr(demo.moe.model.generation_config, "prefill_chunk_size", 5, raising=False)
    (chunked,) = engine.generate([PROMPTS], 6, capture="tokens")
    assert chunked.responses == whole.responses
    np.testing.assert_array_equal(chunked.routing.counts, whole.routing.counts)
    np.testing.assert_array_equal(chunked.tokens.experts, whole.tokens.experts)


def test_a_router_that_gives_nan_stops_the_run_and_names_layer_and_prompt(demo):
    """Only the second prompt's tokens are broken, and only in layer 2."""
    layer = demo.moe.layers[2]

    def spoil(module, args):
        hidden, chosen, weights = args
        if weights.shape[0] > 3:  # the prompt, not a decoding step
            weights = weights.view(3, -1, 2).clone()
            weights[1, -1] = float("nan")
            return hidden, chosen, weights.view(-1, 2)
        return None

    handle = layer.experts.register_forward_pre_hook(spoil, prepend=True)
    try:
        with pytest.raises(
            HarnessError, match="layer 2: the router's output for prompt 'p1' is not a number"
        ):
            list(TransformersEngine(demo, batch_size=3).generate([PROMPTS], 3, capture="counts"))
    finally:
        handle.remove()
