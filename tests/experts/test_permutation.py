"""Permutation tests of experts: exact on tiny cases, calibrated by simulation, one-sided."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.experts.permutation import paired_test, permutation_test, q_values
from harness.experts.views import Usage

ONES = np.ones(8)
HALF = np.arange(8) < 4


def view(draw, n, layers=2, experts=16, busy=0.3):
    """A usage view without any difference between prompts' labels: overdispersed counts, lengths of 20 to 99."""
    tokens = draw.integers(20, 100, n).astype(float)
    rates = busy * draw.standard_gamma(2.0, size=(n, layers, experts)) / 2
    return draw.poisson(rates * tokens[:, None, None]).astype(np.float32), tokens


def one_expert(values):
    return np.asarray(values, dtype=np.float32)[:, None, None]


def linearised_t(used, weight, unsafe):
    """The statistic as its docstring defines it, written down once more in plain sums."""
    rate = {g: used[unsafe == g].sum() / weight[unsafe == g].sum() for g in (True, False)}

    def variance(which, around):
        n, residuals = which.sum(), used[which] - around * weight[which]
        return n / (n - 1) * (residuals**2).sum() / weight[which].sum() ** 2

    welch = variance(unsafe, rate[True]) + variance(~unsafe, rate[False])
    n, pooled = len(used), used - used.sum() / weight.sum() * weight
    spread = (pooled**2).sum() / (n - 1)
    as_one = spread * sum((unsafe == g).sum() / weight[unsafe == g].sum() ** 2 for g in (True, False))
    return (rate[True] - rate[False]) / np.sqrt(max(welch, as_one))


def every_labelling(n, n_unsafe):
    for chosen in itertools.combinations(range(n), n_unsafe):
        yield np.isin(np.arange(n), chosen)


def test_statistic_by_hand():
    """Four prompts of 1 against four of 0: the difference is 1, their own variance 0, that of all prompts 2/7."""
    test = permutation_test(one_expert([1] * 4 + [0] * 4), ONES, HALF, permutations=100, seed=0)
    assert test.statistic.shape == test.p_value.shape == (1, 1)
    assert test.statistic.item() == pytest.approx(1 / np.sqrt(2 / 7 * (1 / 4 + 1 / 4)), rel=1e-5)


def test_perfect_separation_of_eight_prompts_has_one_labelling_in_70():
    test = permutation_test(one_expert([1] * 4 + [0] * 4), ONES, HALF, permutations=20_000, seed=0)
    assert test.p_value.item() == pytest.approx(1 / 70, rel=0.15)


@pytest.mark.parametrize("direction", ["unsafe", "safe"])
@pytest.mark.parametrize("case", range(6))
def test_one_expert_agrees_with_the_enumeration_of_all_labellings(case, direction):
    draw = np.random.default_rng(case)
    n, n_unsafe = 9, 4 + case % 2
    used, weight = draw.integers(0, 6, n).astype(float), draw.integers(1, 9, n).astype(float)
    if case > 3:
        used, weight = (used > 2).astype(float), np.ones(n)
    unsafe = np.arange(n) < n_unsafe
    sign = 1 if direction == "unsafe" else -1
    observed = linearised_t(used, weight, unsafe)
    null = np.array([linearised_t(used, weight, labels) for labels in every_labelling(n, n_unsafe)])
    exact = (sign * null >= sign * observed - 1e-6).mean()

    test = permutation_test(
        one_expert(used), weight, unsafe, permutations=20_000, seed=case, direction=direction
    )
    assert test.statistic.item() == pytest.approx(observed, abs=1e-4)
    assert test.p_value.item() == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


@pytest.mark.parametrize("direction", ["unsafe", "safe"])
def test_pairs_agree_with_the_enumeration_of_all_signs(direction):
    d = np.array([0.5, 0.25, -0.125, 0.75, 0.0, 0.25])
    signs = np.array(list(itertools.product([-1, 1], repeat=6)))
    sign = 1 if direction == "unsafe" else -1
    exact = (sign * signs @ d >= sign * d.sum() - 1e-9).mean()
    test = paired_test(d[:, None, None], permutations=20_000, seed=1, direction=direction)
    assert test.statistic.item() == pytest.approx(1.625 / np.sqrt(0.953125))
    assert test.p_value.item() == pytest.approx(exact, abs=0.015)


def test_float32_products_are_exact_enough():
    draw = np.random.default_rng(3)
    used, tokens = view(draw, 300, layers=1, experts=8, busy=5.0)
    used[:, 0, :2] = draw.random((300, 2)) < 0.02
    unsafe = draw.permutation(300) < 40
    test = permutation_test(used, tokens, unsafe, permutations=100, seed=0)
    expected = [linearised_t(used[:, 0, e].astype(float), tokens, unsafe) for e in range(8)]
    np.testing.assert_allclose(test.statistic[0], expected, atol=2e-5)


def test_p_values_are_uniform_where_nothing_differs():
    draw = np.random.default_rng(5)
    found = []
    for seed in range(40):
        used, tokens = view(draw, 40)
        found.append(permutation_test(used, tokens, np.arange(40) < 20, permutations=500, seed=seed).p_value)
    p_value = np.concatenate(found).ravel()
    assert p_value.mean() == pytest.approx(0.5, abs=0.04)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p_value <= level).mean() == pytest.approx(level, abs=0.3 * level + 0.005)


@pytest.mark.parametrize(
    ("harmful", "direction"), [(20, "unsafe"), (20, "safe"), (180, "unsafe"), (180, "safe")]
)
def test_rare_experts_of_unequal_groups_are_not_found_by_chance(harmful, direction):
    """Half of the experts are used by 4 % of prompts, so that often none of the smaller group's uses them."""
    draw = np.random.default_rng(7)
    found = []
    for seed in range(25):
        used, tokens = view(draw, 200, experts=64)
        used[..., ::2] *= draw.random((200, 2, 32)) < 0.04
        test = permutation_test(
            used, tokens, np.arange(200) < harmful, permutations=500, seed=seed, direction=direction
        )
        found.append(test.p_value)
    rare = np.stack(found)[..., ::2].ravel()
    # 1,600 p-values; experts of a layer depend on one another, so the bound is loose: 32 and 8 of them.
    assert (rare <= 0.01).mean() <= 0.02
    assert (rare <= 0.001).mean() <= 0.005
    assert (q_values(np.stack(found)) <= 0.05).sum() <= 1


def test_a_raised_expert_is_selected_and_its_lowered_layer_mates_are_not():
    draw = np.random.default_rng(11)
    unsafe = np.arange(120) < 60
    shapes = np.full((120, 2, 8), 20.0)
    shapes[unsafe, 0, 3] = 80.0
    rates = draw.standard_gamma(shapes)
    rates *= 2 / rates.sum(axis=-1, keepdims=True)
    used = draw.poisson(rates * 50).astype(np.float32)
    tokens = np.full(120, 50.0)

    raised = permutation_test(used, tokens, unsafe, permutations=1_000, seed=0)
    assert np.argwhere(q_values(raised.p_value) <= 0.05).tolist() == [[0, 3]]
    assert (raised.p_value[0, [0, 1, 2, 4, 5, 6, 7]] > 0.5).all()
    lowered = permutation_test(used, tokens, unsafe, permutations=1_000, seed=0, direction="safe")
    assert np.argwhere(q_values(lowered.p_value) <= 0.05).tolist() == [[0, e] for e in (0, 1, 2, 4, 5, 6, 7)]
    np.testing.assert_array_equal(raised.statistic, lowered.statistic)


def test_what_pairs_share_cancels():
    """Topics move experts by ten times the noise: two samples look alike, pairs tell the small difference."""
    draw = np.random.default_rng(13)
    topic = draw.normal(0, 1, size=(60, 1, 8))
    harmful, twins = (0.5 + topic + draw.normal(0, 0.1, size=topic.shape) for _ in range(2))
    harmful[:, 0, 2] += 0.1
    unsafe = np.arange(120) < 60
    two_samples = permutation_test(
        np.concatenate([harmful, twins]), np.ones(120), unsafe, permutations=1_000, seed=0
    )
    pairs = paired_test(harmful - twins, permutations=1_000, seed=0)
    assert (q_values(two_samples.p_value) > 0.05).all()
    assert np.argwhere(q_values(pairs.p_value) <= 0.05).tolist() == [[0, 2]]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    harmful=st.integers(4, 12),
    benign=st.integers(4, 12),
    direction=st.sampled_from(["unsafe", "safe"]),
    busy=st.sampled_from([0.005, 0.3, 5.0]),
)
def test_p_values_are_between_the_least_possible_and_one_and_follow_from_the_seed(
    seed, harmful, benign, direction, busy
):
    draw = np.random.default_rng(seed)
    n = harmful + benign
    used, tokens = view(draw, n, experts=6, busy=busy)
    unsafe = np.arange(n) < harmful
    test = permutation_test(used, tokens, unsafe, permutations=100, seed=seed, direction=direction)
    assert np.isfinite(test.statistic).all()
    assert ((test.p_value >= 1 / 601) & (test.p_value <= 1)).all()
    again = permutation_test(used, tokens, unsafe, permutations=100, seed=seed, direction=direction)
    np.testing.assert_array_equal(test.p_value, again.p_value)
    paired = paired_test(used[:4] - used[-4:], permutations=100, seed=seed, direction=direction)
    assert ((paired.p_value >= 1 / 601) & (paired.p_value <= 1)).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_neither_order_nor_scale_nor_swapped_names_matter(seed):
    draw = np.random.default_rng(seed)
    used, tokens = view(draw, 24, experts=6)
    unsafe = np.arange(24) < 10
    test = permutation_test(used, tokens, unsafe, permutations=100, seed=1)
    order = draw.permutation(24)
    shuffled = permutation_test(used[order], tokens[order], unsafe[order], permutations=100, seed=1)
    np.testing.assert_allclose(test.statistic, shuffled.statistic, atol=1e-4)
    scaled = permutation_test(1_000 * used, 3 * tokens, unsafe, permutations=100, seed=1)
    np.testing.assert_allclose(test.statistic, scaled.statistic, atol=1e-4)
    swapped = permutation_test(used, tokens, ~unsafe, permutations=100, seed=1)
    np.testing.assert_allclose(test.statistic, -swapped.statistic, atol=1e-4)


def test_experts_that_no_prompt_uses_or_all_use_alike_have_p_1_and_are_not_pooled():
    draw = np.random.default_rng(17)
    used, tokens = view(draw, 30, layers=1, experts=4)
    unsafe = np.arange(30) < 15
    alone = permutation_test(used, tokens, unsafe, permutations=200, seed=0)
    dead, alike = np.zeros((30, 1, 1)), 0.3 * tokens[:, None, None]
    beside = permutation_test(
        np.concatenate([used, dead, alike], axis=2), tokens, unsafe, permutations=200, seed=0
    )
    assert beside.p_value[0, 4:].tolist() == [1, 1]
    assert beside.statistic[0, 4:].tolist() == [0, 0]
    np.testing.assert_allclose(beside.p_value[:, :4], alone.p_value)


def test_an_expert_used_by_one_harmful_prompt_is_no_evidence():
    draw = np.random.default_rng(19)
    used, tokens = view(draw, 60, layers=1, experts=32)
    used[:, 0, 0] = 0
    used[0, 0, 0] = 90
    test = permutation_test(used, tokens, np.arange(60) < 6, permutations=1_000, seed=0)
    # One prompt of 60 is harmful with probability 6/60.
    assert test.p_value[0, 0] >= 0.08


def test_prompts_without_routed_tokens_say_nothing():
    draw = np.random.default_rng(23)
    used, tokens = view(draw, 20)
    unsafe = np.arange(20) < 9
    more = permutation_test(
        np.concatenate([used, np.zeros((5, 2, 16))]),
        np.concatenate([tokens, np.zeros(5)]),
        np.concatenate([unsafe, np.ones(5, dtype=bool)]),
        permutations=100,
        seed=0,
    )
    np.testing.assert_array_equal(
        more.p_value, permutation_test(used, tokens, unsafe, permutations=100, seed=0).p_value
    )


def test_q_values_by_hand():
    """p * m / rank, made monotone from the largest down; the family is 4 since NaN is left out."""
    p_value = np.array([[0.01, np.nan, 0.04], [0.03, 0.5, np.nan]])
    expected = [[0.04, np.nan, 0.16 / 3], [0.16 / 3, 0.5, np.nan]]
    np.testing.assert_allclose(q_values(p_value), expected)
    assert np.isnan(q_values(np.full((1, 2), np.nan))).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unsafe": np.arange(8) < 3}, "need 4 harmful prompts with routed tokens or more, found 3"),
        ({"unsafe": np.arange(8) < 6}, "need 4 benign prompts with routed tokens or more, found 2"),
        ({"weight": np.arange(8.0)}, "need 4 harmful prompts with routed tokens or more, found 3"),
        ({"permutations": 99}, "permutations = 99: expected 100 or more"),
    ],
)
def test_what_cannot_be_tested_is_refused(change, message):
    arguments = {"used": np.ones((8, 1, 2)), "weight": ONES, "unsafe": HALF, "permutations": 100, "seed": 0}
    with pytest.raises(BadInputError, match=message):
        permutation_test(**{**arguments, **change})


def test_pairs_that_cannot_be_tested_are_refused():
    with pytest.raises(BadInputError, match="need 4 pairs or more, found 3"):
        paired_test(np.ones((3, 1, 2)), seed=0)
    with pytest.raises(ValueError, match="finite"):
        paired_test(np.full((4, 1, 2), np.nan), seed=0)


def test_broken_arrays_are_refused():
    with pytest.raises(ValueError, match="shapes do not fit"):
        permutation_test(np.ones((8, 1, 2)), np.ones(7), HALF, seed=0)
    with pytest.raises(ValueError, match="finite"):
        permutation_test(np.full((8, 1, 2), np.nan), ONES, HALF, seed=0)


@pytest.mark.slow
def test_planted_experts_are_found_and_false_discoveries_stay_below_q():
    draw = np.random.default_rng(29)
    unsafe = np.arange(200) < 100
    proportions, found = [], []
    for seed in range(60):
        used, tokens = view(draw, 200, layers=2, experts=64)
        used[:100, :, :3] += draw.poisson(0.3 * tokens[:100, None, None], size=(100, 2, 3))
        selected = (
            q_values(permutation_test(used, tokens, unsafe, permutations=500, seed=seed).p_value) <= 0.05
        )
        proportions.append(selected[:, 3:].sum() / max(selected.sum(), 1))
        found.append(selected[:, :3].mean())
    assert np.mean(proportions) <= 0.05 + 2 * np.std(proportions) / np.sqrt(60)
    assert np.mean(found) >= 0.9


def test_copies_of_a_prompt_are_permuted_together_and_count_as_one():
    draw = np.random.default_rng(5)
    used, tokens = (
        draw.integers(0, 20, size=(24, 1, 6)).astype(float),
        draw.integers(20, 40, size=24).astype(float),
    )
    unsafe, copies = np.arange(24) < 12, np.repeat(np.arange(24), 3)
    once = permutation_test(used, tokens, unsafe, permutations=500, seed=0)
    view = Usage(used[copies], tokens[copies]).summed(copies)
    thrice = permutation_test(*view, unsafe, permutations=500, seed=0)
    np.testing.assert_allclose(thrice.p_value, once.p_value)
    apart = permutation_test(used[copies], tokens[copies], unsafe[copies], permutations=500, seed=0)
    assert np.abs(apart.statistic).max() > 1.5 * np.abs(once.statistic).max()
