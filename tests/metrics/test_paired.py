import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.paired import (
    adjust,
    compare_scores,
    compare_shares,
    detectable_difference,
    mcnemar,
    newcombe_interval,
)

counts = st.integers(0, 60)


def outcomes(both, first_only, second_only, neither):
    pairs = [(True, True)] * both + [(True, False)] * first_only
    pairs += [(False, True)] * second_only + [(False, False)] * neither
    return tuple({str(i): pair[side] for i, pair in enumerate(pairs)} for side in (0, 1))


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


@pytest.mark.parametrize(("n", "share", "level"), [(200, 0.25, 0.05), (132, 0.05, 0.0125), (60, 0.0, 0.05)])
def test_the_minimum_detectable_difference_is_found_in_80_percent_of_simulations(n, share, level):
    difference = detectable_difference(n, share, level)
    share = max(share, difference)
    generator = random.Random(0)
    shown = 0
    for _ in range(1_000):
        draws = [generator.random() for _ in range(n)]
        first_only = sum(draw < (share + difference) / 2 for draw in draws)
        discordant = sum(draw < share for draw in draws)
        shown += mcnemar(first_only, discordant - first_only) < level
    assert 0.8 - 3 * 0.0127 < shown / 1_000 < 0.87


def test_the_minimum_detectable_difference_grows_with_stricter_levels_and_is_never_zero():
    assert 0.08 < detectable_difference(100, 0.10, 0.05) < 0.11
    assert detectable_difference(100, 0.10, 0.05) < detectable_difference(100, 0.10, 0.01)
    assert 0.07 < detectable_difference(100, 0.0, 0.05) < 0.1
    assert detectable_difference(3, 0.0, 0.05) == 1.0


def test_shares_are_compared_where_both_are_scored():
    variant = {"a": True, "b": True, "c": True, "d": None, "e": False}
    against = {"a": False, "b": False, "c": True, "d": True, "e": None}
    result = compare_shares(variant, against)
    assert (result.n, result.discordant, result.groups) == (3, 2, None)
    assert (result.variant, result.against) == (1.0, pytest.approx(1 / 3))
    assert result.difference.value == pytest.approx(2 / 3)
    assert result.p_value == pytest.approx(0.5)
    assert result.test == "exact McNemar"
    # Against the variant d is no refusal and e one of the other: 3 and 3 of 5; for it 4 and 2.
    assert result.worst_case == (0.0, pytest.approx(0.4), 1.0)


def test_a_clear_difference_is_found_with_an_interval_off_zero():
    result = compare_shares(*outcomes(3, 90, 2, 5))
    assert result.difference.value == pytest.approx(0.88)
    assert result.p_value < 1e-20
    assert result.difference.low > 0.75
    assert result.worst_case == (result.difference.value, result.difference.value, result.p_value)


def test_a_difference_that_unscored_samples_could_turn_has_a_worst_case_of_p_1():
    base = {str(i): i < 60 for i in range(132)}
    result = compare_shares({str(i): None if i < 40 else True for i in range(132)}, base)
    assert (result.n, result.variant) == (92, 1.0)
    assert result.worst_case.low == pytest.approx(92 / 132 - 60 / 132)
    assert result.p_value < result.worst_case.p_value < 0.05
    turned = compare_shares({str(i): None if i < 72 else True for i in range(132)}, base)
    assert turned.p_value < 1e-10
    assert (turned.worst_case.low, turned.worst_case.p_value) == (pytest.approx(0.0), 1.0)


def test_nothing_scored_in_both_gives_no_figure():
    result = compare_shares({"a": None}, {"a": True})
    assert (result.difference, result.p_value, result.n) == (None, None, 0)
    assert result.minimum_detectable(0.05) is None


def test_other_samples_cannot_be_compared():
    with pytest.raises(ValueError, match="2 ids are in one only, such as 'a'"):
        compare_shares({"a": True}, {"b": True})


def test_repeated_prompts_are_compared_by_groups():
    variant = {str(i): i < 30 for i in range(40)}
    against = dict.fromkeys(variant, False)
    groups = {id: int(id) // 4 for id in variant}
    result = compare_shares(variant, against, groups)
    assert (result.test, result.n, result.groups) == ("cluster-robust t", 40, 10)
    assert result.p_value > compare_shares(variant, against).p_value
    assert result.minimum_detectable(0.05) > compare_shares(variant, against).minimum_detectable(0.05)


@pytest.mark.parametrize("refuses", [True, False])
def test_groups_that_all_differ_alike_are_compared_by_one_member_each(refuses):
    variant = {str(i): refuses for i in range(40)}
    groups = {id: int(id) // 4 for id in variant}
    result = compare_shares(variant, dict.fromkeys(variant, False), groups)
    assert (result.test, result.difference.value) == ("exact McNemar", float(refuses))
    assert result.p_value == (pytest.approx(2 / 2**10) if refuses else 1.0)
    assert result.difference.low < result.difference.high


def test_scores_are_compared_by_their_differences():
    variant = {"a": 2.0, "b": 1.0, "c": 0.0, "d": 1.0}
    against = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}
    result = compare_scores(variant, against)
    # Differences 1, 0, 0, 0: mean 0.25, standard deviation 0.5, standard error 0.25, t = 1 with 3 degrees of freedom.
    assert result.difference.value == pytest.approx(0.25)
    assert result.difference.low == pytest.approx(0.25 - 3.182446 * 0.25)
    assert (result.test, result.p_value) == ("paired t", pytest.approx(0.391002, abs=1e-6))
    assert result.minimum_detectable(0.05) == pytest.approx(2.801585 * 0.25, abs=1e-6)


def test_right_and_wrong_answers_are_compared_as_shares_are():
    variant = {str(i): float(i < 30) for i in range(40)}
    against = {str(i): float(i < 24 or i == 39) for i in range(40)}
    result = compare_scores(variant, against)
    assert (result.test, result.n, result.discordant) == ("exact McNemar", 40, 7)
    assert result.p_value == mcnemar(6, 1)
    assert result.difference == newcombe_interval(24, 6, 1, 9)


def test_no_difference_seen_is_not_a_difference_of_exactly_zero():
    same = {str(i): float(i % 3 > 0) for i in range(60)}
    result = compare_scores(same, same)
    assert (result.difference.value, result.p_value) == (0.0, 1.0)
    assert result.difference.low < -0.01 < 0.01 < result.difference.high


def test_scores_that_all_differ_alike_get_an_exact_test_instead_of_a_division_by_zero():
    equal = compare_scores({"a": 1.5, "b": 0.5}, {"a": 1.5, "b": 0.5})
    assert (equal.variant, equal.against, equal.difference, equal.p_value) == (1.0, 1.0, None, 1.0)
    all_better = compare_scores({str(i): 2.0 for i in range(6)}, {str(i): 0.5 for i in range(6)})
    assert (all_better.test, all_better.p_value) == ("exact sign", pytest.approx(2 / 2**6))
    assert all_better.difference is None  # no interval of width 0
    by_rounding = compare_scores({"a": 0.3, "b": 0.4, "c": 0.2}, {"a": 0.2, "b": 0.3, "c": 0.1})
    assert (by_rounding.test, by_rounding.p_value) == ("exact sign", pytest.approx(2 / 2**3))


def test_holm_multiplies_in_steps_and_leaves_missing_values_out_of_the_family():
    assert adjust([0.01, None, 0.04, 0.03]) == [
        pytest.approx(0.03),
        None,
        pytest.approx(0.06),
        pytest.approx(0.06),
    ]
    assert adjust([None]) == [None]
    assert adjust([]) == []


@pytest.mark.slow
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
