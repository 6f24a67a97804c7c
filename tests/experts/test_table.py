"""The expert table, checked against numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.experts.controls import match
from harness.experts.table import Control, Group, Statistics, expert_table, statistical_table
from harness.routing.counts import RoutingCounts


def counts_of(rows, tokens, layers=(1,), k=2) -> RoutingCounts:
    """Counts of one prompt a row: rows [N, phases, L, E]."""
    array = np.asarray(rows, dtype=np.int32)
    counts = RoutingCounts(
        tuple(map(str, range(len(array)))), layers, k, array, np.asarray(tokens, dtype=np.int32)
    )
    counts.check("test")
    return counts


# Two harmful prompts of 2 and 1 prompt tokens, one benign of 4; one layer of three experts, two a token.
UNSAFE = counts_of(
    [[[[2, 1, 1]], [[1, 1, 0]], [[0, 1, 1]]], [[[1, 1, 0]], [[2, 1, 1]], [[1, 1, 0]]]],
    [[2, 1, 1], [1, 2, 1]],
)
SAFE = counts_of([[[[1, 4, 3]], [[0, 2, 2]], [[2, 2, 0]]]], [[4, 2, 2]])


def column(table, phase, name):
    return table[table["phase"] == phase][name].tolist()


def test_risk_difference_by_hand():
    table = expert_table(UNSAFE, SAFE)
    assert column(table, "prompt", "a_unsafe") == [3, 2, 1]
    assert column(table, "prompt", "a_unsafe_n") == pytest.approx([3 / 3, 2 / 3, 1 / 3])
    assert column(table, "prompt", "a_safe_n") == pytest.approx([1 / 4, 4 / 4, 3 / 4])
    assert column(table, "prompt", "risk_diff") == pytest.approx([3 / 4, -1 / 3, -5 / 12])
    assert column(table, "generation", "risk_diff") == pytest.approx([3 / 3 - 0, 2 / 3 - 1, 1 / 3 - 1])
    assert column(table, "all", "a_unsafe") == [6, 4, 2]
    assert column(table, "all", "risk_diff") == pytest.approx([6 / 6 - 1 / 6, 4 / 6 - 1, 2 / 6 - 5 / 6])
    assert column(table, "decision", "risk_diff") == pytest.approx([1 / 2 - 1, 2 / 2 - 1, 1 / 2 - 0])


def test_rows_are_keyed_by_phase_true_layer_and_expert():
    table = expert_table(UNSAFE, SAFE, phases=["prompt"])
    assert table[["phase", "layer", "expert"]].to_numpy().tolist() == [["prompt", 1, e] for e in range(3)]


def test_long_prompts_weigh_by_their_tokens():
    """Counts are pooled before dividing: the two harmful prompts' own means would give another number."""
    assert column(expert_table(UNSAFE, SAFE), "prompt", "a_unsafe_n")[2] == pytest.approx(1 / 3)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4), layers=st.integers(1, 3), prompts=st.integers(1, 4))
def test_a_layers_usage_sums_to_k_and_its_differences_to_zero(seed, k, layers, prompts):
    draw = np.random.default_rng(seed)

    def some() -> RoutingCounts:
        tokens = draw.integers(1, 9, size=(prompts, 3))
        rows = np.zeros((prompts, 3, layers, 6), dtype=np.int32)
        for sample, phase, layer in np.ndindex(prompts, 3, layers):
            for _ in range(tokens[sample, phase]):
                rows[sample, phase, layer, draw.choice(6, k, replace=False)] += 1
        return counts_of(rows, tokens, tuple(range(layers)), k)

    sums = (
        expert_table(some(), some())
        .groupby(["phase", "layer"])[["a_safe_n", "a_unsafe_n", "risk_diff"]]
        .sum()
    )
    np.testing.assert_allclose(sums["a_safe_n"], k)
    np.testing.assert_allclose(sums["a_unsafe_n"], k)
    np.testing.assert_allclose(sums["risk_diff"], 0, atol=1e-12)


def test_swapping_the_sides_turns_the_sign():
    forth, back = expert_table(UNSAFE, SAFE), expert_table(SAFE, UNSAFE)
    np.testing.assert_allclose(forth["risk_diff"], -back["risk_diff"])


@pytest.mark.parametrize(("which", "order"), [("unsafe", 1), ("safe", -1)])
def test_a_phase_without_tokens_is_an_error(which, order):
    empty = counts_of([[[[2, 1, 1]], [[0, 0, 0]], [[1, 1, 0]]]], [[2, 0, 1]])
    pair = (empty, SAFE)[::order]
    with pytest.raises(
        BadInputError, match=rf"the {which} prompts have no routed token in phase 'generation'"
    ):
        expert_table(*pair)
    assert len(expert_table(*pair, phases=["prompt", "all"])) == 6


def test_counts_of_different_models_are_refused():
    other = counts_of([[[[1, 1, 0, 0]]] * 3], [[1, 1, 1]])
    moved = counts_of([[[[1, 4, 3]], [[0, 2, 2]], [[2, 2, 0]]]], [[4, 2, 2]], layers=(2,))
    for safe in (other, moved):
        with pytest.raises(BadInputError, match="different models"):
            expert_table(UNSAFE, safe)


def test_copies_of_prompts_and_of_pairs_change_no_interval_p_value_or_stability():
    draw = np.random.default_rng(3)

    def counts(n):
        tokens = draw.integers(5, 20, size=(n, 3)).astype(np.int32)
        used = np.stack([draw.multinomial(2 * t, [0.4, 0.3, 0.2, 0.1]) for t in tokens.ravel()])
        used = used.reshape(n, 3, 1, 4).astype(np.int32)
        ids = tuple(map(str, range(n)))
        return RoutingCounts(ids, (1,), 2, used, tokens, mass=used.astype(np.float32))

    def copied(counts, copies):
        arrays = {name: getattr(counts, name)[copies] for name in ("counts", "tokens", "mass")}
        return dataclasses.replace(counts, ids=tuple(map(str, range(len(copies)))), **arrays)

    unsafe, safe, copies = counts(8), counts(8), np.repeat(np.arange(8), 3)
    keys = [f"k{i}" for i in range(8)]
    how = Statistics(seed=0, top_k=2, permutations=200, resamples=200, half_samples=50)
    once = statistical_table(
        Group(unsafe), Group(safe), how, Control(Group(safe), match(keys, keys)), phases=["prompt"]
    )
    groups = [Group(copied(each, copies), groups=copies) for each in (unsafe, safe)]
    copied_keys = [f"k{i} {n % 3}" for n, i in enumerate(copies)]
    control = Control(groups[1], match(copied_keys, copied_keys))
    thrice = statistical_table(*groups, how, control, phases=["prompt"])
    for name in ("low", "high", "p_value", "stability", "topic_low", "topic_high", "topic_p_value"):
        np.testing.assert_allclose(thrice[name], once[name], atol=1e-6, err_msg=name)
