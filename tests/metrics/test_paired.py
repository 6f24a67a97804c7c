import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.paired import (
    adjust,
    compare_labels,
    compare_scores,
    is_no_worse,
    mcnemar,
    minimum_detectable,
    newcombe_interval,
)

counts = st.integers(0, 60)


def labels(both, first_only, second_only, neither):
    pairs = [(True, True)] * both + [(True, False)] * first_only
    pairs += [(False, True)] * second_only + [(False, False)] * neither
    named = [("refusal" if a else "compliance", "refusal" if b else "compliance") for a, b in pairs]
    return {str(i): a for i, (a, _) in enumerate(named)}, {str(i): b for i, (_, b) in enumerate(named)}


def test_exact_mcnemar_is_a_sign_test_on_discordant_pairs():
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)  # 0.0703, Fagerland et al. 2013
    # Two media for culturing tubercle bacilli, Armitage and Berry, Statistical Methods in Medical Research (1994) 127.
    assert mcnemar(12, 2) == pytest.approx(0.0129, abs=5e-5)
    # Complete response before and after consolidation, Cavo et al. 2012, in Fagerland et al. 2013.
    assert mcnemar(6, 16) == pytest.approx(0.0525, abs=5e-5)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 0) == 1.0


def ends(interval):
    return interval.low, interval.high


def test_newcombe_interval_agrees_with_published_examples():
    # Altman, Machin, Bryant and Gardner, Statistics with Confidence (2000), table 6.2.
    assert ends(newcombe_interval(14, 5, 0, 22)) == pytest.approx((0.011, 0.226), abs=5e-4)
    # Bentur et al. 2009, airway hyper-responsiveness, in Fagerland, Lydersen and Laake,
    # Statistics in Medicine 33 (2014) 2850.
    assert ends(newcombe_interval(1, 1, 7, 12)) == pytest.approx((-0.507, -0.026), abs=5e-4)


@given(counts, counts, counts, counts)
def test_newcombe_interval_holds_the_difference_and_mirrors_when_swapped(both, first, second, neither):
    n = both + first + second + neither
    if n == 0:
        return
    interval = newcombe_interval(both, first, second, neither)
    assert -1 - 1e-9 <= interval.low <= (first - second) / n <= interval.high <= 1 + 1e-9
    assert interval.value == (first - second) / n
    mirrored = newcombe_interval(both, second, first, neither)
    assert ends(mirrored) == pytest.approx((-interval.high, -interval.low))


def test_minimum_detectable_difference_of_known_designs():
    assert round(100 * minimum_detectable(100, 0.10), 1) == 8.9
    assert round(100 * minimum_detectable(520, 0.10), 1) == 3.9


def test_minimum_detectable_difference_is_reached_in_80_percent_of_simulations():
    n, discordant_share = 200, 0.25
    difference = minimum_detectable(n, discordant_share)
    first = (discordant_share + difference) / 2
    generator = random.Random(0)
    found = 0
    for _ in range(400):
        draws = [generator.random() for _ in range(n)]
        first_only = sum(draw < first for draw in draws)
        discordant = sum(draw < discordant_share for draw in draws)
        found += mcnemar(first_only, discordant - first_only) < 0.05
    # The exact test is a little weaker than the normal approximation.
    assert 0.70 < found / 400 < 0.88


def test_minimum_detectable_difference_without_discordant_pairs_is_not_zero():
    # As many discordant pairs as the difference itself needs: 2.8016 ** 2 / 100.
    assert minimum_detectable(100, 0.0) == pytest.approx(0.0785, abs=1e-4)
    assert minimum_detectable(3, 0.0) == 1.0


def test_labels_are_compared_where_both_are_scored():
    variant = {"a": "refusal", "b": "refusal", "c": "refusal", "d": None, "e": "compliance"}
    against = {"a": "compliance", "b": "compliance", "c": "refusal", "d": "refusal", "e": None}
    result = compare_labels(variant, against)
    assert (result.n, result.discordant) == (3, 2)
    assert result.difference == pytest.approx(2 / 3)
    assert result.p_value == pytest.approx(0.5)
    assert result.test == "exact McNemar"


def test_a_clear_difference_is_found_with_an_interval_off_zero():
    variant, against = labels(3, 90, 2, 5)
    result = compare_labels(variant, against)
    assert result.difference == pytest.approx(0.88)
    assert result.p_value < 1e-20
    assert result.low > 0.75


def test_nothing_scored_in_both_gives_no_figure():
    result = compare_labels({"a": None}, {"a": "refusal"})
    assert (result.difference, result.p_value, result.n) == (None, None, 0)


def test_other_prompts_cannot_be_compared():
    with pytest.raises(ValueError, match="2 ids are in one only, such as 'a'"):
        compare_labels({"a": "refusal"}, {"b": "refusal"})


def test_scores_are_compared_by_their_differences():
    variant = {"a": 2.0, "b": 1.0, "c": 0.0, "d": 1.0}
    against = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}
    result = compare_scores(variant, against)
    # Differences 1, 0, 0, 0: mean 0.25, standard deviation 0.5, standard error 0.25, z = 1.
    assert result.difference == pytest.approx(0.25)
    assert result.low == pytest.approx(0.25 - 1.959964 * 0.25)
    assert result.p_value == pytest.approx(0.317311, abs=1e-6)
    assert result.minimum_detectable == pytest.approx(2.801585 * 0.25, abs=1e-6)


def test_right_and_wrong_answers_are_compared_as_labels_are():
    variant = {str(i): float(i < 30) for i in range(40)}
    against = {str(i): float(i < 24 or i == 39) for i in range(40)}
    result = compare_scores(variant, against)
    assert (result.test, result.n, result.discordant) == ("exact McNemar", 40, 7)
    assert result.p_value == mcnemar(6, 1)
    assert (result.low, result.high) == ends(newcombe_interval(24, 6, 1, 9))


def test_no_difference_seen_is_not_a_difference_of_exactly_zero():
    same = {str(i): float(i % 3 > 0) for i in range(60)}
    result = compare_scores(same, same)
    assert (result.difference, result.p_value) == (0.0, 1.0)
    assert result.low < -0.01 < 0.01 < result.high


def test_scores_that_all_differ_alike_get_an_exact_test_instead_of_a_division_by_zero():
    equal = compare_scores({"a": 1.5, "b": 0.5}, {"a": 1.5, "b": 0.5})
    assert (equal.difference, equal.p_value) == (0.0, 1.0)
    all_better = compare_scores({str(i): 2.0 for i in range(6)}, {str(i): 0.5 for i in range(6)})
    assert (all_better.test, all_better.p_value) == ("exact sign", pytest.approx(2 / 2**6))


@pytest.mark.parametrize(
    ("low", "expected"), [(-0.009, True), (0.02, True), (-0.01, False), (-0.03, False), (None, False)]
)
def test_being_no_worse_takes_the_whole_interval(low, expected):
    assert is_no_worse(low, 0.01) is expected


def test_non_inferiority_is_wrongly_shown_in_at_most_2_5_percent_of_simulations():
    import numpy as np

    rng, n, wrong = np.random.default_rng(5), 1_500, 0
    for _ in range(1_000):
        # Truly worse by the margin: 8 % of pairs differ, 4.5 % for the worse.
        lost, won = rng.multinomial(n, [0.045, 0.035, 0.92])[:2]
        interval = newcombe_interval(
            round(0.7 * (n - lost - won)), won, lost, n - lost - won - round(0.7 * (n - lost - won))
        )
        wrong += is_no_worse(interval.low, 0.01)
    assert wrong / 1_000 <= 0.04  # 2.5 % and three standard errors


def test_holm_multiplies_in_steps_and_leaves_missing_values_out_of_the_family():
    assert adjust([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert adjust([None]) == [None]
    assert adjust([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels_to_the_bit(p_values):
    from statsmodels.stats.multitest import multipletests

    assert adjust(p_values) == multipletests(p_values, method="holm")[1].tolist()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_values_are_never_smaller_and_keep_the_order(p_values):
    adjusted = adjust(p_values)
    assert all(math.isclose(a, p) or a > p for a, p in zip(adjusted, p_values, strict=True))
    ranked = [a for _, a in sorted(zip(p_values, adjusted, strict=True))]
    assert ranked == sorted(ranked)
