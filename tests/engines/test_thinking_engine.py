"""A model that thinks: its answers are told from its thoughts, each has limits of its own, and phases meet between."""

from __future__ import annotations

import numpy as np
import pytest
from routed_answers import ask
from scripted import scripted

from harness.data.prompts import Prompt
from harness.engines.base import Sampling
from harness.engines.transformers import TransformersEngine
from harness.models.chat import ChatTemplate
from harness.routing.files import load_counts, load_tokens, save_routing

SCRIPTS = {
    " tree": "<think> red blue green</think> bread milk book",
    " dog": " one two three four",
    " door": "<seed:think> lock police...",
    " cat": "[THINK][/THINK] kettle dish",
}
PROMPTS = [Prompt(name.strip(), f"Say{name}", "task", "benign") for name in SCRIPTS]


@pytest.fixture(scope="module")
def thinker(demo):
    return scripted(demo, SCRIPTS)


def engine_of(loaded, reasoning_tokens=12, batch_size=4):
    return TransformersEngine(
        loaded, batch_size, ChatTemplate.of_run(loaded.tokenizer, {}, "auto", reasoning_tokens)
    )


def answers_of(loaded, max_new_tokens, **how):
    return {row.id: row for row in ask(engine_of(loaded, **how), PROMPTS, max_new_tokens).responses}


def test_answers_are_told_from_what_came_before_them(thinker):
    answers = answers_of(thinker, 8)
    found = {name: (row.response, row.reasoning, row.reasoning_tokens) for name, row in answers.items()}
    assert found == {
        "tree": ("bread milk book", "red blue green", 5),
        "dog": ("one two three four", None, None),
        "door": ("", answers["door"].reasoning, 12),
        "cat": ("kettle dish", "", 2),
    }
    assert answers["door"].reasoning.startswith("lock police lock")
    assert answers["door"].never_began
    assert {name: row.finish_reason for name, row in answers.items()} == {
        **{"tree": "stop", "dog": "stop", "cat": "stop"},
        "door": "length",
    }
    assert thinker.tokenizer.decode(answers["tree"].tokens) == " bread milk book<|im_end|>"


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_an_answers_tokens_are_counted_from_where_it_begins(thinker, longest):
    answers = answers_of(thinker, longest)
    assert answers["tree"].response == " ".join(["bread", "milk", "book"][:longest])
    assert answers["dog"].response == " ".join(["one", "two", "three", "four"][:longest])
    assert answers["cat"].response == " ".join(["kettle", "dish"][:longest])
    for name in ("tree", "dog"):
        assert answers[name].finish_reason == "length"
        assert answers[name].generated_tokens == (answers[name].reasoning_tokens or 0) + longest


@pytest.mark.parametrize(("budget", "begins"), [(5, False), (6, True)])
def test_an_answer_must_begin_within_the_budget(thinker, budget, begins):
    row = answers_of(thinker, 8, reasoning_tokens=budget)["tree"]
    assert row.never_began != begins
    assert row.generated_tokens == (9 if begins else 5)


def test_limits_of_a_row_do_not_depend_on_the_rows_beside_it(thinker):
    assert answers_of(thinker, 2, batch_size=4) == answers_of(thinker, 2, batch_size=1)


def test_sampled_answers_have_the_same_limits(thinker):
    how = Sampling(answers=2, temperature=0.001)
    found = ask(engine_of(thinker), PROMPTS, 2, how).responses
    assert [row.response for row in found if row.id.startswith("tree")] == ["bread milk"] * 2


def test_phases_meet_at_the_first_token_of_the_answer(thinker):
    answered = ask(engine_of(thinker), PROMPTS, 8)
    counts, rows = answered.counts, answered.responses
    tokens = {
        phase: counts.of(phase)[1].tolist()
        for phase in ("prompt", "generation", "reasoning", "answer", "all")
    }
    ids = [row.id for row in rows]
    assert ids == ["cat", "dog", "door", "tree"]
    # Reasoning with its markers; the last token of a generation is never routed.
    assert tokens["reasoning"] == [2, 0, 11, 5]
    assert tokens["answer"] == [2, 4, 0, 3]
    assert tokens["generation"] == [4, 4, 11, 8] == [row.generated_tokens - 1 for row in rows]
    prompts = [row.prompt_tokens for row in rows]
    assert tokens["prompt"] == prompts
    # Four before the answer's first token and four from there; none where no answer began.
    assert counts.of("decision")[1].tolist() == [
        *(min(4, prompts[0] + 2) + 2, min(4, prompts[1]) + 4),
        *(0, 4 + 3),
    ]
    both = counts.of("reasoning")[0] + counts.of("answer")[0]
    np.testing.assert_array_equal(both, counts.of("generation")[0])
    np.testing.assert_allclose(
        counts.mass_of("reasoning") + counts.mass_of("answer"), counts.mass_of("generation"), rtol=1e-5
    )


def test_the_experts_of_a_phase_are_those_of_its_tokens(thinker):
    answered = ask(engine_of(thinker), PROMPTS, 8)
    one = answered.tokens.of("tree")
    place = answered.tokens.ids.index("tree")
    start = one.prompt_tokens
    for phase, rows in (("reasoning", slice(start, start + 5)), ("answer", slice(start + 5, None))):
        expected = np.zeros((2, 8), dtype=np.int64)
        for experts in one.experts[rows]:
            for layer, chosen in enumerate(experts):
                expected[layer, chosen] += 1
        np.testing.assert_array_equal(answered.counts.of(phase)[0][place], expected)


def test_the_boundary_survives_the_disk(thinker, tmp_path):
    answered = ask(engine_of(thinker), PROMPTS, 8)
    path = tmp_path / "task.safetensors"
    save_routing(answered.counts, path, answered.tokens)
    read = load_tokens(path)
    assert read.answer_at.tolist() == answered.tokens.answer_at.tolist() == [2, 0, -1, 5]
    assert load_counts(path).of("answer")[1].tolist() == [2, 4, 0, 3]
    places = read.answer_places[read.samples == 3]
    assert places.tolist()[-3:] == [0, 1, 2]
    assert (read.answer_places[read.samples == 2] < -1000).all()


def test_a_given_beginning_is_no_part_of_the_answer_that_continues_it(thinker):
    engine = engine_of(thinker)
    (result,) = engine.generate([PROMPTS[:1]], 8, opening=" dog")
    assert [(row.response, row.reasoning) for row in result.responses] == [("one two three four", None)]
