"""The place of a method among random draws."""

from __future__ import annotations

import numpy as np
import pytest

from harness.metrics.draws import FEWEST_DRAWS, best_p_value, draw_p_value, fewest_draws


def test_p_counts_the_method_itself_and_ties_against_it():
    assert draw_p_value(0.9, [0.1] * 19) == 0.05
    assert draw_p_value(0.9, [0.1] * 18 + [0.9]) == 0.1
    assert draw_p_value(0.9, [0.1] * 18 + [0.95]) == 0.1
    assert draw_p_value(0.1, [0.9] * 19) == 1.0
    assert draw_p_value(0.1, [0.9] * 19, higher_is_better=False) == 0.05
    assert draw_p_value(0.1 + 0.2, [0.3] * 19) == 1.0


def test_how_many_draws_a_level_takes():
    assert fewest_draws(0.05) == FEWEST_DRAWS == 19
    assert fewest_draws(0.01) == 99
    assert fewest_draws(0.2) == 4
    assert best_p_value(FEWEST_DRAWS) <= 0.05 < best_p_value(FEWEST_DRAWS - 1)


@pytest.mark.parametrize("draws", [19, 39])
def test_one_more_draw_is_called_better_in_no_more_than_one_of_twenty_runs(draws):
    """Draws as spread as the demo's, with ties at 0 and 1."""
    rng, called = np.random.default_rng(0), 0
    for _ in range(4_000):
        values = np.round(rng.beta(0.4, 0.4, draws + 1) * 132) / 132
        called += draw_p_value(values[0], values[1:].tolist()) <= 0.05
    assert called / 4_000 <= 0.05 + 2 * (0.05 * 0.95 / 4_000) ** 0.5
