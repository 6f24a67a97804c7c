"""Stability: the share of half-samples that select an expert."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.experts.stability import stability

HALF = np.arange(8) < 4


def test_a_clear_difference_is_always_selected_and_its_opposite_never():
    used = np.zeros((8, 2, 2))
    used[:4, 1, 0], used[4:, 0, 1] = 1, 1
    assert stability(used, np.ones(8), HALF, top_k=1, seed=0).tolist() == [[0, 0], [1, 0]]
    assert stability(used, np.ones(8), HALF, top_k=1, seed=0, direction="safe").tolist() == [[0, 1], [0, 0]]


def test_one_prompt_of_four_is_in_half_of_the_half_samples():
    """Expert 1 beats expert 0, which all harmful prompts use a little, only where its one prompt is drawn."""
    used = np.zeros((8, 1, 3))
    used[:4, 0, 0], used[0, 0, 1] = 0.1, 1
    share = stability(used, np.ones(8), HALF, top_k=1, half_samples=4_000, seed=0)
    np.testing.assert_allclose(share, [[0.5, 0.5, 0]], atol=0.03)


def test_it_agrees_with_the_enumeration_of_all_half_samples():
    draw = np.random.default_rng(2)
    weight = draw.integers(5, 20, 9).astype(float)
    used = draw.binomial(weight[:, None, None].astype(int), 0.4, size=(9, 2, 3)).astype(float)
    unsafe = np.arange(9) < 5
    times = np.zeros(6)
    halves = list(
        itertools.product(itertools.combinations(range(5), 2), itertools.combinations(range(5, 9), 2))
    )
    for a, b in halves:
        harmful, benign = (used[list(i)].sum(axis=0) / weight[list(i)].sum() for i in (a, b))
        times[np.argsort(-(harmful - benign).ravel(), kind="stable")[:2]] += 1
    share = stability(used, weight, unsafe, top_k=2, half_samples=6_000, seed=0)
    np.testing.assert_allclose(share.ravel(), times / len(halves), atol=0.03)


def test_equal_experts_are_ordered_by_layer_and_number():
    assert stability(np.ones((8, 2, 2)), np.ones(8), HALF, top_k=3, seed=0).tolist() == [[1, 1], [1, 0]]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    harmful=st.integers(4, 9),
    benign=st.integers(4, 9),
    top_k=st.integers(1, 8),
    direction=st.sampled_from(["unsafe", "safe"]),
)
def test_shares_sum_to_top_k_and_follow_from_the_seed(seed, harmful, benign, top_k, direction):
    draw = np.random.default_rng(seed)
    n = harmful + benign
    weight = draw.integers(1, 30, n).astype(float)
    used = draw.binomial(weight[:, None, None].astype(int), 0.3, size=(n, 2, 4)).astype(np.float32)
    unsafe = np.arange(n) < harmful
    options = {"top_k": top_k, "half_samples": 50, "seed": seed}
    share = stability(used, weight, unsafe, direction=direction, **options)
    assert share.sum() == pytest.approx(top_k)
    assert ((share >= 0) & (share <= 1)).all()
    np.testing.assert_array_equal(share, stability(used, weight, unsafe, direction=direction, **options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unsafe": np.arange(8) < 2}, "need 4 harmful prompts with routed tokens or more, found 2"),
        ({"top_k": 5}, "top_k = 5: expected 1 to 4, the experts of the model"),
        ({"top_k": 0}, "top_k = 0: expected 1 to 4"),
        ({"half_samples": 0}, "half_samples = 0: expected 1 or more"),
    ],
)
def test_what_cannot_be_halved_is_refused(change, message):
    arguments = {"used": np.ones((8, 2, 2)), "weight": np.ones(8), "unsafe": HALF, "top_k": 1, "seed": 0}
    with pytest.raises(BadInputError, match=message):
        stability(**{**arguments, **change})
