"""Shares, their intervals and their worst cases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.rates import Rate, rate, wilson, worst_case


def outcomes(*values):
    return {str(place): value for place, value in enumerate(values)}


def test_unscored_samples_are_counted_and_left_out():
    result = rate(outcomes(True, True, True, False, None))
    assert (result.value, result.n, result.scored, result.unscored) == (0.75, 5, 4, 1)
    assert result.interval == wilson(3, 4)


def test_without_a_scored_sample_there_is_no_share():
    assert rate(outcomes(None, None)) == Rate(None, 2, 0, 2)
    assert rate({}) == Rate(None, 0, 0, 0)
    assert rate({}).value is None


def test_the_worst_case_counts_every_unscored_sample_one_way_then_the_other():
    assert worst_case(outcomes(True, False, None, None)) == (0.25, 0.75)
    assert worst_case(outcomes(True, False)) == (0.5, 0.5)
    assert worst_case(outcomes(None)) == (0.0, 1.0)
    assert worst_case({}) is None


def test_near_duplicates_widen_the_interval_and_leave_the_share():
    asked = outcomes(*[True] * 20, *[False] * 20)
    grouped = rate(asked, {id: int(id) // 4 for id in asked})
    assert grouped.value == 0.5
    assert grouped.interval.high - grouped.interval.low > 1.5 * (wilson(20, 40).high - wilson(20, 40).low)


def test_wilson_agrees_with_newcombes_published_examples():
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3: the score interval.
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0.0, 0.1611)}
    for (successes, n), ends in published.items():
        interval = wilson(successes, n)
        assert interval.value == successes / n
        assert (interval.low, interval.high) == pytest.approx(ends, abs=5e-5)


def test_all_of_73_proves_a_rate_of_0_95():
    assert wilson(73, 73).low >= 0.95 > wilson(72, 72).low


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_rate_and_stays_within_0_and_1(counts):
    successes, n = counts
    interval = wilson(successes, n)
    assert 0 <= interval.low <= interval.value == successes / n <= interval.high <= 1
