import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.rates import Rate, share_of, unscored_range, wilson


def test_a_rate_is_over_scored_answers_only():
    rate = share_of(["refusal", "refusal", "refusal", "compliance", None], "refusal")
    assert rate.value == 0.75
    assert (rate.n, rate.scored, rate.unscored) == (5, 4, 1)


def test_no_scored_answer_gives_no_figure():
    assert share_of([None, None], "refusal") == Rate(None, None, None, 2, 0, 2)
    assert share_of([], "refusal") == Rate(None, None, None, 0, 0, 0)


def test_the_range_of_unscored_answers_goes_from_none_to_all_of_them_refusals():
    assert unscored_range(share_of(["refusal", "compliance", None, None], "refusal")) == (0.25, 0.75)
    assert unscored_range(share_of(["refusal", "compliance"], "refusal")) == (0.5, 0.5)
    assert unscored_range(share_of([None], "refusal")) == (0.0, 1.0)
    assert unscored_range(share_of([], "refusal")) is None


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
