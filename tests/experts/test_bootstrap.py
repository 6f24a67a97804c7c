"""Bootstrap intervals of the risk difference: numbers by hand, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.experts.bootstrap import bootstrap_interval, paired_interval

HALF = np.arange(8) < 4


def one_expert(values):
    return np.asarray(values, dtype=np.float64)[:, None, None]


def test_prompts_that_agree_leave_no_doubt():
    interval = bootstrap_interval(
        one_expert([3, 6, 3, 9, 1, 2, 1, 3]), np.array([1, 2, 1, 3] * 2), HALF, seed=0
    )
    assert interval.low.item() == pytest.approx(2)
    assert interval.high.item() == pytest.approx(2)


def test_presence_in_half_of_the_harmful_prompts_is_a_binomial():
    """The resampled rate is Binomial(100, 1/2) / 100, whose 2.5 % and 97.5 % points are 0.40 and 0.60."""
    used = one_expert([1] * 50 + [0] * 50 + [0] * 20)
    interval = bootstrap_interval(used, np.ones(120), np.arange(120) < 100, resamples=20_000, seed=0)
    assert interval.low.item() == pytest.approx(0.40, abs=0.011)
    assert interval.high.item() == pytest.approx(0.60, abs=0.011)
    pairs = paired_interval(one_expert([1] * 50 + [0] * 50), resamples=20_000, seed=0)
    assert pairs.low.item() == pytest.approx(0.40, abs=0.011)
    assert pairs.high.item() == pytest.approx(0.60, abs=0.011)


def test_prompts_are_resampled_not_their_tokens():
    """Two of four prompts send all of their 1,000 tokens to the expert: four prompts stay four prompts."""
    used = one_expert([1000, 1000, 0, 0, 0, 0, 0, 0])
    interval = bootstrap_interval(used, np.full(8, 1000.0), HALF, seed=0)
    assert (interval.low.item(), interval.high.item()) == (0.0, 1.0)


def test_long_prompts_weigh_by_their_tokens():
    used, weight = one_expert([90, 0, 0, 0, 0, 0, 0, 0]), np.array([90.0, 10, 10, 10, 10, 10, 10, 10])
    interval = bootstrap_interval(used, weight, HALF, resamples=5_000, seed=0)
    assert interval.low.item() == 0
    # Drawn three times of four, probability 0.047 (0.004 for all four): 270 / 280.
    assert interval.high.item() == pytest.approx(270 / 280)


def test_an_expert_that_no_prompt_uses_has_no_width():
    interval = bootstrap_interval(np.zeros((8, 2, 3)), np.ones(8), HALF, seed=0)
    assert interval.low.shape == interval.high.shape == (2, 3)
    assert not interval.low.any()
    assert not interval.high.any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), harmful=st.integers(4, 9), benign=st.integers(4, 9))
def test_intervals_are_ordered_nested_and_turn_with_the_labels(seed, harmful, benign):
    draw = np.random.default_rng(seed)
    n = harmful + benign
    weight = draw.integers(1, 30, n).astype(float)
    used = draw.binomial(weight[:, None, None].astype(int), 0.3, size=(n, 2, 3)).astype(np.float32)
    unsafe = np.arange(n) < harmful
    wide = bootstrap_interval(used, weight, unsafe, resamples=200, seed=seed)
    narrow = bootstrap_interval(used, weight, unsafe, resamples=200, seed=seed, level=0.5)
    assert (wide.low <= narrow.low).all()
    assert (narrow.low <= narrow.high).all()
    assert (narrow.high <= wide.high).all()
    again = bootstrap_interval(used, weight, unsafe, resamples=200, seed=seed)
    np.testing.assert_array_equal(wide.low, again.low)
    # A layer's interval does not depend on the layers beside it.
    last = bootstrap_interval(used[:, 1:], weight, unsafe, resamples=200, seed=seed)
    np.testing.assert_array_equal(wide.high[1:], last.high)


def test_it_holds_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(1)
    unsafe = np.arange(120) < 50
    tokens = draw.integers(20, 100, 120).astype(float)
    # 600 experts are 600 trials here: each is independent of the others.
    rates = draw.standard_gamma(2.0, size=(120, 6, 100)) * np.where(unsafe, 0.2, 0.1)[:, None, None]
    used = draw.poisson(rates * tokens[:, None, None])
    interval = bootstrap_interval(used, tokens, unsafe, resamples=1_000, seed=0)
    covered = ((interval.low <= 0.2) & (interval.high >= 0.2)).mean()
    assert 0.90 <= covered <= 0.97
    pairs = paired_interval(rates[:50] - rates[50:100], resamples=1_000, seed=0)
    assert 0.90 <= ((pairs.low <= 0.2) & (pairs.high >= 0.2)).mean() <= 0.97


def test_what_cannot_be_resampled_is_refused():
    used, weight = np.ones((8, 1, 1)), np.ones(8)
    with pytest.raises(BadInputError, match="need 4 benign prompts with routed tokens or more, found 1"):
        bootstrap_interval(used, weight, np.arange(8) < 7, seed=0)
    with pytest.raises(BadInputError, match="need 4 pairs or more, found 2"):
        paired_interval(used[:2], seed=0)
    with pytest.raises(BadInputError, match="resamples = 10: expected 100 or more"):
        bootstrap_interval(used, weight, HALF, resamples=10, seed=0)
