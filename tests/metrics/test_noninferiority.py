"""A loss is shown to be small only where the exact test says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.bounds import difference_p_value
from harness.metrics.noninferiority import no_worse_mean, no_worse_share


def pairs(wins, losses, n):
    variant = {str(i): i < wins or i >= wins + losses for i in range(n)}
    against = {str(i): i >= wins for i in range(n)}
    return variant, against


def bound(wins, losses, n, margin=0.05):
    return no_worse_share(*pairs(wins, losses, n), more_is_better=True, margin=margin)


def test_without_a_loss_the_number_of_samples_decides():
    # Of n pairs that never differ, about 1 - 0.025 ** (1 / n) or more is ruled out.
    assert bound(0, 0, 132).bound == pytest.approx(1 - 0.025 ** (1 / 132), abs=3e-3)
    assert bound(0, 0, 132).is_no_worse
    few = bound(0, 0, 40)
    assert not few.is_no_worse
    assert 60 < few.needed < 90
    assert bound(0, 0, few.needed).is_no_worse


@pytest.mark.slow
@given(wins=st.integers(0, 20), losses=st.integers(0, 20), rest=st.integers(0, 80))
def test_the_bound_is_below_the_margin_exactly_where_the_test_says_so(wins, losses, rest):
    result = bound(wins, losses, wins + losses + rest + 1)
    assert result.is_no_worse == (difference_p_value(wins, losses, result.n, -0.05) <= 0.025)
    assert (result.bound <= 0.05) == result.is_no_worse
    assert result.bound >= (losses - wins) / result.n - 1e-9


def test_what_would_be_needed_is_enough_and_a_loss_as_large_as_the_margin_is_never_shown():
    undecided = bound(4, 7, 100)
    assert not undecided.is_no_worse
    scale = undecided.needed / 100
    assert bound(round(4 * scale), round(7 * scale), undecided.needed).is_no_worse
    assert bound(2, 9, 100).needed is None


def test_what_would_show_a_loss_is_the_least_that_mcnemar_s_test_takes_at_the_level():
    # Of 5 pairs all are lost: 6 to 0 has p = 2 / 2**6 = .031, 7 to 0 has .016.
    lost = bound(0, 5, 5)
    assert (lost.needed, lost.needed_for_a_loss(0.05), lost.needed_for_a_loss(0.025)) == (None, 6, 7)
    assert bound(3, 3, 100).needed_for_a_loss(0.05) is None
    # Unscored samples count for the variant here: nothing is shown to be lost that may not be.
    variant, against = pairs(0, 5, 5)
    open_ = no_worse_share(dict.fromkeys(variant), against, more_is_better=True, margin=0.05)
    assert open_.bound > 0.9
    assert open_.needed_for_a_loss(0.05) is None


def test_less_may_be_better():
    variant, against = pairs(0, 3, 200)
    rises = {id: not outcome for id, outcome in variant.items()}
    base = {id: not outcome for id, outcome in against.items()}
    fewer = no_worse_share(rises, base, more_is_better=False, margin=0.05)
    assert fewer == no_worse_share(variant, against, more_is_better=True, margin=0.05)


def test_unscored_samples_count_against_the_variant():
    variant, against = pairs(0, 0, 132)
    unscored = variant | {str(i): None for i in range(6)}
    one_side = no_worse_share(unscored, against, more_is_better=True, margin=0.05)
    assert one_side.bound == bound(0, 6, 132).bound
    other = no_worse_share(
        dict.fromkeys(variant, False), dict.fromkeys(variant, None), more_is_better=True, margin=0.05
    )
    assert other.bound == pytest.approx(1.0, abs=1e-3)


def test_near_duplicates_count_once():
    variant, against = pairs(0, 0, 132)
    groups = {id: int(id) // 4 for id in variant}
    result = no_worse_share(variant, against, more_is_better=True, margin=0.05, groups=groups, seed=3)
    assert (result.n, result.is_no_worse) == (33, False)
    assert result.bound == bound(0, 0, 33).bound


def test_a_loss_at_the_margin_is_called_small_in_no_more_than_2_5_percent_of_simulations():
    rng, n, wrong = np.random.default_rng(5), 150, 0
    outcomes, counts = np.unique(
        # Truly worse by the margin: 8 % of pairs differ, 6.5 % for the worse.
        rng.multinomial(n, [0.065, 0.015, 0.92], 4_000)[:, :2],
        axis=0,
        return_counts=True,
    )
    for (losses, wins), count in zip(outcomes.tolist(), counts.tolist(), strict=True):
        wrong += count * (difference_p_value(wins, losses, n, -0.05) <= 0.025)
    assert wrong / 4_000 <= 0.025 + 2 * (0.025 * 0.975 / 4_000) ** 0.5


def test_scores_are_bounded_by_the_t_of_their_differences():
    variant = {str(i): 0.5 + 0.1 * (i % 2) for i in range(50)}
    against = {str(i): 0.55 for i in range(50)}
    result = no_worse_mean(variant, against, more_is_better=True, margin=0.02)
    # The differences are +-0.05: mean 0, standard error 0.05 / 7, t with 49 degrees of freedom 2.0096.
    assert result.bound == pytest.approx(2.0096 * 0.05 / 7, abs=1e-5)
    assert result.is_no_worse
    undecided = no_worse_mean(variant, against, more_is_better=True, margin=0.01)
    assert (undecided.is_no_worse, undecided.needed) == (False, pytest.approx(103, abs=2))


def test_scores_that_never_differ_are_bounded_by_the_share_that_might():
    same = {str(i): 0.3 for i in range(200)}
    result = no_worse_mean(same, same, more_is_better=True, margin=0.02)
    assert (result.bound, result.is_no_worse) == (pytest.approx(1 - 0.025 ** (1 / 200)), True)
    few = {str(i): 0.3 for i in range(8)}
    assert no_worse_mean(few, few, more_is_better=True, margin=0.02).needed == 183
    assert no_worse_mean({"a": 0.3}, {"a": 0.3}, more_is_better=True, margin=0.02) is None
