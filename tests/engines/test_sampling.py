"""Sampled answers: drawn from the probabilities, by random numbers that belong to the prompt and the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from harness.data.prompts import Prompt
from harness.engines.base import Sampling
from harness.engines.sampling import draw
from harness.engines.transformers import TransformersEngine

PROMPTS = [
    Prompt(f"p{i}", text, "task", "benign")
    for i, text in enumerate(["Name three fruits.", "Hi", "Tell me a story about a fox.", "Why is it so?"])
]


def sampled(engine, prompts, how):
    results = engine.generate(engine.batches(prompts, answers=how.answers), 12, sampling=how)
    return {row.id: row for result in results for row in result.responses}


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7)])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature, top_p):
    scores = torch.tensor([[1.0, 3.0, -2.0, 2.5, 0.0, 2.0]])
    numbers = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(1))
    drawn = draw(scores.expand(len(numbers), -1), numbers, temperature, top_p)
    counts = np.bincount(drawn.ravel().numpy(), minlength=6)
    likely = (scores[0] / temperature).softmax(-1).double().numpy()
    order = np.argsort(-likely)
    # A token is kept unless those before it hold the share already.
    kept = order[np.cumsum(likely[order]) - likely[order] < top_p]
    expected = np.zeros(6)
    expected[kept] = likely[kept] / likely[kept].sum() * len(numbers)
    assert not counts[expected == 0].any()
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.001


def test_an_answer_does_not_depend_on_what_it_is_generated_with(demo):
    how = Sampling(answers=3, temperature=2.0, seed=7)
    together = sampled(TransformersEngine(demo, 12), PROMPTS, how)
    alone = sampled(TransformersEngine(demo, 1), PROMPTS[::-1], how)
    assert together == alone
    fewer = sampled(TransformersEngine(demo, 12), PROMPTS[:2], how._replace(answers=2))
    assert fewer == {id: together[id] for id in fewer}
    assert len({row.response for row in together.values()}) > 6


def test_answers_have_a_number_and_their_prompts_can_be_told(demo):
    rows = sampled(TransformersEngine(demo, 4), PROMPTS[:2], Sampling(answers=2, temperature=1.5))
    assert [(row.id, row.number, row.prompt_id) for row in sorted(rows.values(), key=lambda row: row.id)] == [
        (f"p{i}#{number}", number, f"p{i}") for i in range(2) for number in (1, 2)
    ]
    assert all(row.row()["number"] == row.number for row in rows.values())
    (greedy,) = next(TransformersEngine(demo, 1).generate([PROMPTS[:1]], 4)).responses
    assert (greedy.id, greedy.prompt_id, "number" in greedy.row()) == ("p0", "p0", False)


def test_a_low_temperature_gives_the_greedy_answer(demo):
    engine = TransformersEngine(demo, 4)
    greedy = next(engine.generate([PROMPTS], 12)).responses
    cold = sampled(engine, PROMPTS, Sampling(temperature=1e-4))
    assert {row.prompt_id: row.response for row in cold.values()} == {row.id: row.response for row in greedy}


def test_batches_hold_as_many_answers_as_the_setting_says(demo):
    engine = TransformersEngine(demo, 4)
    assert [len(batch) for batch in engine.batches(PROMPTS, answers=2)] == [2, 2]
    assert [len(batch) for batch in engine.batches(PROMPTS, answers=9)] == [1, 1, 1, 1]
