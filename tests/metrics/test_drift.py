"""Drift from base: means over tokens, intervals over answers."""

from __future__ import annotations

import math

import pytest

from harness.metrics.drift import Share, drift


def test_tokens_count_alike_whatever_answer_they_are_in():
    found = drift([Share(1, 1.0, 0.5), Share(3, 0.0, 0.1)])
    assert found.kl == pytest.approx(0.6 / 4)
    assert found.perplexity == pytest.approx(math.exp(1 / 4))
    assert (found.answers, found.tokens) == (2, 4)


def test_the_interval_is_over_answers_and_has_a_seed():
    shares = [Share(10, 1.0, 0.1 * n) for n in range(20)]
    found = drift(shares, 3)
    assert found.low < found.kl < found.high
    assert drift(shares, 3) == found
    # Ten times the tokens of the same answers say no more of other answers.
    longer = drift([Share(s.tokens * 10, s.surprise * 10, s.divergence * 10) for s in shares], 3)
    assert (longer.low, longer.high) == (pytest.approx(found.low), pytest.approx(found.high))


def test_one_answer_has_no_interval_and_none_no_figure():
    assert drift([Share(2, 1.0, 1.0)]).low is None
    assert drift([]) is None


def test_answers_to_near_duplicate_prompts_are_no_more_evidence_than_one():
    one = [Share(10, 1.0, 0.1 * n) for n in range(20)]
    alone, repeated = drift(one, 3), drift(one * 4, 3, [*range(20)] * 4)
    assert (repeated.low, repeated.high) == (pytest.approx(alone.low), pytest.approx(alone.high))
    assert repeated.answers == 80
    assert drift(one * 4, 3).high - drift(one * 4, 3).low < 0.6 * (alone.high - alone.low)
    assert drift(one, 3, [0] * 20).low is None
