"""Repeated prompts are no independent evidence."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.clustered import clustered_difference, clustered_rate
from harness.metrics.rates import wilson


def test_without_repeats_the_interval_is_wilson_s_but_for_the_small_sample_correction():
    outcomes = [True] * 30 + [False] * 90
    found = clustered_rate(outcomes, range(120))
    simple = wilson(30, 120)
    assert (found.low, found.high) == (
        pytest.approx(simple.low, abs=0.002),
        pytest.approx(simple.high, abs=0.002),
    )
    assert found.groups == 120


def test_asking_every_prompt_four_times_says_no_more_than_once():
    once = [True] * 12 + [False] * 28
    alone = clustered_rate(once, range(40))
    repeated = clustered_rate(once * 4, list(range(40)) * 4)
    assert (repeated.low, repeated.high) == (
        pytest.approx(alone.low, abs=2e-3),
        pytest.approx(alone.high, abs=2e-3),
    )
    assert repeated.groups == 40


@pytest.mark.parametrize("outcome", [True, False])
def test_where_all_agree_there_are_as_many_samples_as_groups(outcome):
    found = clustered_rate([outcome] * 60, [place // 3 for place in range(60)])
    simple = wilson(20 * outcome, 20)
    assert (found.low, found.high) == (pytest.approx(simple.low), pytest.approx(simple.high))


def test_repeats_that_differ_are_never_worth_more_than_their_number():
    outcomes = [True, False] * 30
    found = clustered_rate(outcomes, [place // 2 for place in range(60)])
    simple = wilson(30, 60)
    assert found.low >= simple.low - 1e-9
    assert found.high <= simple.high + 1e-9
    assert clustered_rate([], []) is None


def test_the_interval_of_repeated_prompts_covers_the_true_share():
    """60 prompts of a true share of 0.3, some asked up to six times with the same answer each time."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 7, 60)
    groups = np.repeat(np.arange(60), sizes)
    covered = naive = 0
    for _ in range(400):
        outcomes = np.repeat(rng.random(60) < 0.3, sizes)
        found = clustered_rate(outcomes.tolist(), groups.tolist())
        covered += found.low <= 0.3 <= found.high
        simple = wilson(int(outcomes.sum()), len(outcomes))
        naive += simple.low <= 0.3 <= simple.high
    assert covered / 400 > 0.92
    assert naive / 400 < 0.85


def test_a_difference_on_repeated_prompts_is_found_no_more_often_than_the_level():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 7, 60)
    groups = np.repeat(np.arange(60), sizes).tolist()
    found = 0
    for _ in range(400):
        differences = np.repeat(rng.choice([-1, 0, 1], 60, p=[0.2, 0.6, 0.2]), sizes)
        found += clustered_difference(differences.tolist(), groups).p_value < 0.05
    assert found / 400 < 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def test_a_difference_without_variance_or_groups_has_no_test():
    assert clustered_difference([1] * 10, range(10)) is None
    assert clustered_difference([1, 0], [0, 0]) is None


def test_a_clear_difference_is_found():
    found = clustered_difference([1] * 30 + [0] * 10, [place // 2 for place in range(40)])
    assert found.p_value < 0.001
    assert 0 < found.low < 0.75 < found.high <= 1
    assert found.groups == 20
