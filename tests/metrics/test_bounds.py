"""Exact one-sided bounds: never too often right by chance, at any truth and sample size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from harness.metrics import bounds

LEVEL = 0.05


@pytest.mark.parametrize(
    ("successes", "n", "bound"), [(0, 10, 0.1), (73, 73, 0.95), (9, 12, 0.5), (130, 132, 0.95)]
)
def test_a_share_s_p_value_is_the_binomial_test_s(successes, n, bound):
    expected = binomtest(successes, n, bound, alternative="greater").pvalue
    assert bounds.share_p_value(successes, n, bound) == pytest.approx(expected)


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (5, 20), (20, 20), (131, 132)])
def test_a_share_s_bounds_are_clopper_and_pearson_s(successes, n):
    interval = binomtest(successes, n).proportion_ci(1 - 2 * LEVEL, method="exact")
    assert bounds.share_lower_bound(successes, n, LEVEL) == pytest.approx(interval.low)
    assert bounds.share_upper_bound(successes, n, LEVEL) == pytest.approx(interval.high)


@given(n=st.integers(1, 300), bound=st.floats(0.01, 0.99))
def test_a_share_at_its_bound_is_shown_to_be_above_it_no_more_often_than_the_level(n, bound):
    counts = np.arange(n + 1)
    shown = np.array([bounds.share_p_value(count, n, bound) <= LEVEL for count in counts])
    assert binom.pmf(counts, n, bound)[shown].sum() <= LEVEL + 1e-12


@given(n=st.integers(1, 200), data=st.data())
def test_a_share_s_bound_is_above_a_limit_exactly_where_the_test_says_so(n, data):
    successes = data.draw(st.integers(0, n))
    limit = data.draw(st.floats(0.01, 0.99))
    lower = bounds.share_lower_bound(successes, n, LEVEL)
    if abs(lower - limit) > 1e-9:
        assert (lower > limit) == (bounds.share_p_value(successes, n, limit) <= LEVEL)


@pytest.mark.parametrize(("first_only", "second_only", "n"), [(10, 2, 40), (0, 0, 12), (7, 7, 30)])
def test_a_difference_s_p_value_at_0_is_mcnemar_s(first_only, second_only, n):
    pairs = first_only + second_only
    expected = binomtest(first_only, pairs, 0.5, alternative="greater").pvalue if pairs else 1.0
    assert bounds.difference_p_value(first_only, second_only, n, 0.0) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "bound"), [(12, -0.1), (25, -0.05), (25, 0.2), (40, -0.2)])
def test_a_difference_at_its_bound_is_shown_to_exceed_it_no_more_often_than_the_level(n, bound):
    """Summed over all outcomes, at every share of discordant pairs."""
    outcomes = [(a, b) for a, b in itertools.product(range(n + 1), repeat=2) if a + b <= n]
    shown = [outcome for outcome in outcomes if bounds.difference_p_value(*outcome, n, bound) <= LEVEL]
    assert shown
    counts = np.array([(a, b, n - a - b) for a, b in shown])
    for second in np.linspace(max(0.0, -bound), (1 - bound) / 2, 41):
        first = second + bound
        truth = np.clip([first, second, 1 - first - second], 0, 1)
        assert multinomial.pmf(counts, n, truth / truth.sum()).sum() <= LEVEL + 1e-9


@given(n=st.integers(2, 80), data=st.data())
def test_a_difference_s_bound_and_its_test_agree(n, data):
    first = data.draw(st.integers(0, n))
    second = data.draw(st.integers(0, n - first))
    limit = data.draw(st.floats(-0.5, 0.5).map(lambda value: round(value, 3)))
    lower = bounds.difference_lower_bound(first, second, n, LEVEL, limit)
    if abs(lower - limit) > 2e-4:
        assert (lower > limit) == (bounds.difference_p_value(first, second, n, limit) <= LEVEL)
    assert lower <= (first - second) / n + 1e-12 or lower == limit


def test_more_wins_never_count_against_a_difference():
    values = [bounds.difference_p_value(wins, 3, 50, -0.05) for wins in range(20)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize(("bound", "expected"), [(0.95, 59), (0.9, 29), (0.5, 5)])
def test_the_smallest_sample_that_can_show_a_share(bound, expected):
    assert bounds.smallest_n(lambda n: bounds.share_p_value(n, n, bound) <= LEVEL) == expected


def test_what_no_sample_shows_has_no_smallest_size():
    assert bounds.smallest_n(lambda n: False) is None
