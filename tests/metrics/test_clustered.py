"""Repeated prompts are no independent evidence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.regression.linear_model import OLS

from harness.metrics.clustered import (
    clustered_share,
    clustered_test,
    mean_and_error,
    one_per_group,
    summed_by_group,
)
from harness.metrics.rates import wilson


def test_without_repeats_the_interval_is_wilson_s_but_for_the_small_sample_correction():
    outcomes = [True] * 30 + [False] * 90
    interval, simple = clustered_share(outcomes, range(120)), wilson(30, 120)
    assert interval.low == pytest.approx(simple.low, abs=0.003)
    assert interval.high == pytest.approx(simple.high, abs=0.003)


def test_asking_every_prompt_four_times_says_no_more_than_once():
    once = [True] * 12 + [False] * 28
    alone, repeated = clustered_share(once, range(40)), clustered_share(once * 4, [*range(40)] * 4)
    assert (repeated.low, repeated.high) == (
        pytest.approx(alone.low, abs=2e-3),
        pytest.approx(alone.high, abs=2e-3),
    )


@pytest.mark.parametrize("outcome", [True, False])
def test_where_all_agree_there_are_as_many_samples_as_groups(outcome):
    groups = [place // 3 for place in range(300)]
    interval, simple = clustered_share([outcome] * 300, groups), wilson(100 * outcome, 100)
    assert interval.low == pytest.approx(simple.low, abs=2e-3)
    assert interval.high == pytest.approx(simple.high, abs=2e-3)


def test_one_group_says_nothing_and_no_sample_has_no_share():
    assert clustered_share([True, True], [0, 0]).low == 0.0
    assert clustered_share([], []) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=60))
def test_an_interval_is_inside_0_and_1_and_holds_its_share(samples):
    interval = clustered_share([outcome for outcome, _ in samples], [group for _, group in samples])
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 8)), min_size=3, max_size=60))
def test_the_standard_error_is_that_of_statsmodels(samples):
    values, groups = [float(value) for value, _ in samples], [group for _, group in samples]
    if len(set(groups)) < 2:
        return
    fit = OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": np.array(groups)})
    mean, error = mean_and_error(values, groups)
    assert mean == pytest.approx(fit.params[0], abs=1e-12)
    assert error**2 == pytest.approx(fit.cov_params()[0, 0], abs=1e-12)


def test_the_interval_of_repeated_prompts_covers_the_true_share():
    """60 prompts of a true share of 0.3, some asked up to six times with the same answer each time."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 7, 60)
    groups = np.repeat(np.arange(60), sizes)
    covered = naive = 0
    for _ in range(400):
        outcomes = np.repeat(rng.random(60) < 0.3, sizes)
        interval = clustered_share(outcomes.tolist(), groups.tolist())
        covered += interval.low <= 0.3 <= interval.high
        simple = wilson(int(outcomes.sum()), len(outcomes))
        naive += simple.low <= 0.3 <= simple.high
    assert covered / 400 > 0.92
    assert naive / 400 < 0.85


def test_a_difference_on_repeated_prompts_is_found_no_more_often_than_the_level():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 7, 60)
    groups = np.repeat(np.arange(60), sizes).tolist()
    shown = 0
    for _ in range(400):
        differences = np.repeat(rng.choice([-1.0, 0.0, 1.0], 60, p=[0.2, 0.6, 0.2]), sizes)
        shown += clustered_test(differences.tolist(), groups).p_value < 0.05
    assert shown / 400 < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_a_difference_without_variance_or_groups_has_no_test():
    assert clustered_test([1.0] * 10, range(10)) is None
    assert clustered_test([1.0, 0.0], [0, 0]) is None


def test_a_clear_difference_is_found():
    test = clustered_test([1.0] * 30 + [0.0] * 10, [place // 2 for place in range(40)])
    assert test.p_value < 0.001
    assert 0 < test.mean.low < 0.75 < test.mean.high
    assert test.groups == 20


def test_each_group_is_stood_for_by_one_member_that_the_seed_draws():
    groups = {f"{place}": place // 5 for place in range(100)}
    drawn = one_per_group(groups, 0)
    assert sorted(groups[id] for id in drawn) == [*range(20)]
    assert drawn == one_per_group(groups, 0) == sorted(drawn, key=int)
    assert drawn != one_per_group(groups, 1)
    members = {int(id) % 5 for seed in range(20) for id in one_per_group(groups, seed)}
    assert members == {*range(5)}


def test_samples_are_summed_by_group_in_the_order_of_the_groups_first_samples():
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert summed_by_group(values, ["b", "a", "b"]).tolist() == [[5.0, 50.0], [2.0, 20.0]]
    assert summed_by_group(values, None) is values
