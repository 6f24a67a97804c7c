import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.corrected import Drawn, prediction_powered
from harness.metrics.interval import wilson_ends
from harness.metrics.rates import wilson


def test_the_rate_weighs_the_labels_of_each_verdict_by_how_often_it_was_given():
    # 30 % are called refusals, of which 20 of 25 are; of the others 5 of 25: 0.3 * 0.8 + 0.7 * 0.2.
    found = prediction_powered((0.3, 0.2, 0.4), Drawn(20, 25), Drawn(5, 25))
    assert found.value == pytest.approx(0.38)


def test_the_ends_are_those_of_mover():
    rate, labels = wilson(30, 100), (wilson(20, 25), wilson(5, 25))
    found = prediction_powered((0.3, rate.low, rate.high), Drawn(20, 25), Drawn(5, 25))
    # The square root of the sum of what each of three estimates does on its way to its own end.
    changes = (0.3 * (0.8 - labels[0].low), 0.7 * (0.2 - labels[1].low), 0.6 * (0.3 - rate.low))
    assert found.value - found.low == pytest.approx(np.linalg.norm(changes))
    changes = (0.3 * (labels[0].high - 0.8), 0.7 * (labels[1].high - 0.2), 0.6 * (rate.high - 0.3))
    assert found.high - found.value == pytest.approx(np.linalg.norm(changes))


def test_labels_that_are_less_sure_than_their_number_widen_the_interval_alone():
    share, others = (0.3, 0.2, 0.4), Drawn(5, 25)
    sure, unsure = (prediction_powered(share, Drawn(20, 25, ends), others) for ends in (None, (0.5, 0.95)))
    assert unsure.value == sure.value
    assert unsure.low < sure.low < sure.high < unsure.high


def test_a_judge_that_errs_one_way_only_is_put_right_by_the_labels():
    # It takes half of the compliances for refusals: 60 % called refusals are 20 % refusals.
    found = prediction_powered((0.6, 0.5, 0.7), Drawn(10, 30), Drawn(0, 30))
    assert found.value == pytest.approx(0.2)
    assert found.high < 0.6


def test_a_verdict_that_was_never_given_is_taken_for_the_worst():
    # 0 of 100 are called refusals: of those that might be on other prompts, all or none may be refusals.
    rate = wilson(0, 100)
    found = prediction_powered((0.0, rate.low, rate.high), Drawn(0, 0), Drawn(0, 25))
    assert found.value == 0
    assert found.low == 0
    assert found.high >= rate.high


def test_the_ends_of_wilson_are_those_of_one_share():
    low, high = wilson_ends([0, 3 / 25, 1], 25)
    for place, successes in enumerate((0, 3, 25)):
        one = wilson(successes, 25)
        assert (low[place], high[place]) == (pytest.approx(one.low), pytest.approx(one.high))


COUNTS = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(st.integers(0, 200), COUNTS, COUNTS)
def test_an_interval_lies_within_0_and_1_and_holds_its_value(called, inside, outside):
    rate = wilson(called, 200)
    found = prediction_powered((rate.value, rate.low, rate.high), Drawn(*inside), Drawn(*outside))
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.integers(0, 200), st.integers(0, 24), COUNTS)
def test_one_refusal_more_among_the_labels_lowers_no_rate(called, refusals, outside):
    rate = wilson(called, 200)
    share = (rate.value, rate.low, rate.high)
    less, more = (
        prediction_powered(share, Drawn(refusals + one, 25), Drawn(*outside)).value for one in (0, 1)
    )
    assert less <= more


@given(st.integers(1, 99), st.integers(1, 10))
def test_more_labels_of_the_same_shares_make_the_interval_narrower(called, times):
    rate = wilson(called, 100)
    share = (rate.value, rate.low, rate.high)
    few = prediction_powered(share, Drawn(20, 25), Drawn(5, 25))
    many = prediction_powered(share, Drawn(20 * times, 25 * times), Drawn(5 * times, 25 * times))
    assert many.high - many.low <= few.high - few.low + 1e-12
    assert many.value == pytest.approx(few.value)


@pytest.mark.parametrize("n", [100, 300])
def test_25_labels_of_each_verdict_cover_the_true_rate_in_at_least_90_percent_without_bias(n):
    # The whole grid is benchmarks/inference_corrected.py; docs/results/judges.md has its output.
    generator = np.random.default_rng(20261126)
    rate, sensitivity, specificity = np.meshgrid(
        [0.05, 0.2, 0.5, 0.8, 0.95], [0.6, 0.8, 0.99], [0.6, 0.8, 0.99], indexing="ij"
    )
    refusals = generator.binomial(n, rate, (2_000, *rate.shape))
    found = generator.binomial(refusals, sensitivity)
    called = found + generator.binomial(n - refusals, 1 - specificity)
    missed, others = refusals - found, n - called
    drawn, drawn_others = np.minimum(25, called), np.minimum(25, others)
    result = prediction_powered(
        (called / n, *wilson_ends(called / n, n)),
        Drawn(generator.hypergeometric(found, called - found, drawn), drawn),
        Drawn(generator.hypergeometric(missed, others - missed, drawn_others), drawn_others),
    )
    assert ((result.low <= rate) & (rate <= result.high)).mean(axis=0).min() >= 0.90
    assert np.abs(result.value.mean(axis=0) - rate).max() < 0.01
