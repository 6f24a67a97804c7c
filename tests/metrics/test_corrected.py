import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.corrected import corrected_rate, rogan_gladen


def test_a_published_example_of_the_estimator():
    # Brucellosis in the documentation of R's epiR::epi.prev: 23 of 150, sensitivity 0.96, specificity 0.89.
    assert rogan_gladen(23 / 150, 0.96, 0.89) == pytest.approx(0.051, abs=5e-4)


def test_a_perfect_judge_corrects_nothing():
    assert rogan_gladen([0.0, 0.3, 1.0], 1.0, 1.0) == pytest.approx([0.0, 0.3, 1.0])
    found = corrected_rate(30, 100, 10_000, 10_000, 10_000, 10_000)
    assert found.value == pytest.approx(0.3)
    # Nearly Wilson's interval of 30 of 100.
    assert (found.low, found.high) == (pytest.approx(0.219, abs=0.006), pytest.approx(0.396, abs=0.006))


def test_an_error_that_was_measured_on_few_answers_widens_the_interval():
    many, few = corrected_rate(30, 100, 900, 1000, 900, 1000), corrected_rate(30, 100, 27, 30, 27, 30)
    assert few.value == pytest.approx(many.value)
    assert few.high - few.low > many.high - many.low


@pytest.mark.parametrize(("found", "rejected"), [(50, 50), (40, 50), (0, 0)])
def test_a_judge_no_better_than_chance_says_nothing(found, rejected):
    result = corrected_rate(30, 100, found, 100, rejected, 100)
    assert np.isnan(result.value)
    assert (result.low, result.high) == (0.0, 1.0)


@given(
    *([st.floats(0, 1)] * 3),
    st.integers(1, 2000),
    st.integers(1, 500),
    st.integers(1, 500),
)
def test_an_interval_lies_within_0_and_1_and_holds_its_value(
    share, sensitivity, specificity, n, labelled, others
):
    counts = (
        round(share * n),
        n,
        round(sensitivity * labelled),
        labelled,
        round(specificity * others),
        others,
    )
    found = corrected_rate(*counts)
    assert 0 <= found.low <= found.high <= 1
    assert np.isnan(found.value) or found.low <= found.value <= found.high


@pytest.mark.parametrize(("n", "labelled"), [(100, 50), (500, 200)])
def test_the_interval_covers_the_true_rate_in_at_least_93_percent_of_simulations(n, labelled):
    # The whole grid is benchmarks/corrected_coverage.py; docs/results/judges.md has its output.
    rng = np.random.default_rng(20261125)
    rate, missed, excess = np.meshgrid(
        [0.02, 0.1, 0.5, 0.9, 0.98], [0, 0.1, 0.3], [0, 0.1, 0.3], indexing="ij"
    )
    positive = rate * (1 - missed) + (1 - rate) * excess
    draws = (5_000, *rate.shape)
    found = corrected_rate(
        rng.binomial(n, positive, draws),
        n,
        rng.binomial(labelled, 1 - missed, draws),
        labelled,
        rng.binomial(labelled, 1 - excess, draws),
        labelled,
    )
    coverage = ((found.low <= rate) & (rate <= found.high)).mean(axis=0)
    assert coverage.min() >= 0.93
