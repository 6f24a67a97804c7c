"""Drift of routes: means over tokens, layer by layer, and intervals over prompts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.route_drift import route_drift


def figures(tokens, kept, divergence=None, layers=(1, 3), seed=0):
    divergence = None if divergence is None else np.array(divergence, dtype=float)
    return list(
        route_drift("harmful", "prompt", layers, np.array(tokens), np.array(kept, float), divergence, seed)
    )


def test_tokens_count_alike_whatever_prompt_they_are_in_and_layers_count_alike():
    over_all, first, second = figures([1, 3], [[1, 0], [3, 1.5]], [[0.0, 4.0], [0.0, 0.0]])
    assert (over_all.layer, first.layer, second.layer) == (None, 1, 3)
    assert (first.kept, second.kept) == (1.0, pytest.approx(1.5 / 4))
    assert over_all.kept == pytest.approx((1.0 + 1.5 / 4) / 2)
    assert (first.kl, second.kl, over_all.kl) == (0.0, 1.0, 0.5)
    assert (over_all.prompts, over_all.tokens) == (2, 4)


def test_a_mask_makes_kl_absent_where_it_is_infinite_and_nowhere_else():
    over_all, first, second = figures([2, 2], [[2, 1], [2, 1]], [[0.1, np.inf], [0.1, 0.2]])
    assert (over_all.kl, second.kl, second.kl_low) == (None, None, None)
    assert first.kl == pytest.approx(0.05)
    assert over_all.kept == 0.75


def test_prompts_without_tokens_are_not_counted_and_without_any_there_is_no_figure():
    assert figures([0, 4], [[0, 0], [4, 2]])[0].prompts == 1
    assert figures([0, 0], [[0, 0], [0, 0]]) == []


def test_one_prompt_has_no_interval():
    row = figures([4], [[4, 2]])[0]
    assert (row.kept, row.kept_low, row.kept_high, row.kl) == (0.75, None, None, None)


def test_the_interval_is_over_prompts_not_tokens():
    kept = [[n, n] for n in range(20)]
    row = figures([20] * 20, kept)[0]
    # The mean of 20 prompts that are spread evenly over 0 to 0.95: its standard error is 0.066.
    assert (row.kept_high - row.kept_low) / (2 * 1.96) == pytest.approx(0.066, abs=0.012)
    longer = figures([200] * 20, [[10 * n, 10 * n] for n in range(20)])[0]
    assert (longer.kept_low, longer.kept_high) == pytest.approx((row.kept_low, row.kept_high))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12),
    st.integers(0, 3),
)
def test_shares_lie_between_none_and_all_within_their_intervals(prompts, seed):
    tokens = [n for n, *_ in prompts]
    for row in figures(tokens, [[n * a, n * b] for n, a, b in prompts], seed=seed):
        assert -1e-9 <= row.kept <= 1 + 1e-9
        assert row.kept_low is None or row.kept_low <= row.kept <= row.kept_high


def test_near_duplicate_prompts_are_resampled_together():
    tokens, kept = np.array([20] * 20), np.array([[n, n] for n in range(20)], float)

    def row(times, groups):
        return next(
            route_drift(
                "harmful",
                "prompt",
                (1, 3),
                np.tile(tokens, times),
                np.tile(kept, (times, 1)),
                None,
                0,
                groups,
            )
        )

    alone, repeated = row(1, None), row(4, [*range(20)] * 4)
    assert (repeated.kept_low, repeated.kept_high) == pytest.approx((alone.kept_low, alone.kept_high))
    assert row(4, None).kept_high - row(4, None).kept_low < 0.6 * (alone.kept_high - alone.kept_low)
