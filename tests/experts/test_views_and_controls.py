"""Usage views and matched pairs, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.base.errors import BadInputError
from harness.experts import views
from harness.experts.controls import match, pair_differences, pair_groups
from harness.experts.views import Usage
from harness.routing.counts import RoutingCounts
from harness.routing.tokens import RoutedTokens

# Two prompts of 2 and 0 answer tokens; one layer of three experts, two a token.
COUNTS = RoutingCounts(
    ("a", "b"),
    (1,),
    2,
    np.array(
        [[[[1, 1, 0]], [[2, 1, 1]], [[0, 0, 0]]], [[[0, 1, 1]], [[0, 0, 0]], [[0, 0, 0]]]], dtype=np.int32
    ),
    np.array([[1, 2, 0], [1, 0, 0]], dtype=np.int32),
    np.array(
        [[[[0.9, 0.1, 0]], [[1.0, 0.5, 0.5]], [[0, 0, 0]]], [[[0, 0.5, 0.5]], [[0] * 3], [[0] * 3]]],
        dtype=np.float32,
    ),
)


def test_by_token_pools_tokens_and_by_prompt_counts_each_prompt_once():
    token, prompt = views.by_token(COUNTS, "all"), views.by_prompt(COUNTS, "all")
    assert token.pooled()[0].tolist() == pytest.approx([3 / 4, 3 / 4, 2 / 4])
    assert prompt.pooled()[0].tolist() == pytest.approx([(3 / 3 + 0) / 2, (2 / 3 + 1) / 2, (1 / 3 + 1) / 2])


def test_a_prompt_without_tokens_in_the_phase_has_no_weight():
    prompt = views.by_prompt(COUNTS, "generation")
    assert prompt.weight.tolist() == [1, 0]
    assert prompt.pooled()[0].tolist() == [1, 0.5, 0.5]
    assert np.isnan(views.by_token(COUNTS, "generation").rates()[1]).all()


def test_by_gate_counts_gate_weight_and_by_presence_use_at_all():
    assert views.by_gate(COUNTS, "all").pooled()[0].tolist() == pytest.approx([1.9 / 4, 1.1 / 4, 1.0 / 4])
    assert views.by_presence(COUNTS, "all").pooled()[0].tolist() == [0.5, 1, 1]


def test_a_cut_answer_is_its_first_tokens_alone():
    """Answers of three and one tokens cut to two: later tokens do not count, and each prompt counts once."""
    tokens = RoutedTokens(
        ids=("a", "b"),
        offsets=np.array([0, 4, 6]),
        prompt_tokens=np.array([1, 1], dtype=np.int32),
        token_ids=np.arange(6, dtype=np.int32),
        experts=np.array([[0, 1], [0, 2], [0, 1], [1, 2], [1, 2], [0, 1]], dtype=np.uint8)[:, None],
        weights=np.ones((6, 1, 2), dtype=np.float16),
    )
    cut = views.by_cut_answer(tokens, 3, cut=2)
    assert cut.used[:, 0].tolist() == [[1, 0.5, 0.5], [1, 1, 0]]
    assert cut.pooled()[0].tolist() == [1, 0.75, 0.25]


def rates(*rows: list[float]) -> Usage:
    return Usage(np.array(rows)[:, None], np.ones(len(rows)))


def test_pairs_are_prompts_with_the_same_key_on_both_sides():
    pairs = match(["k1", None, "k2", "k1", "lonely"], ["k2", "k1", None])
    assert pairs.keys == ("k1", "k2")
    assert pairs.harmful.tolist() == [0, -1, 1, 0, -1]
    assert pairs.control.tolist() == [1, 0, -1]


def test_a_pairs_difference_is_of_its_sides_means():
    pairs = match(["k1", "k1", "k2"], ["k2", "k1"])
    harmful, control = rates([0.4], [0.8], [0.5]), rates([0.1], [0.2])
    assert pair_differences(harmful, control, pairs).differences[:, 0, 0].tolist() == pytest.approx(
        [0.6 - 0.2, 0.5 - 0.1]
    )


def test_a_pair_with_an_empty_side_is_left_out():
    pairs = match(["k1", "k2"], ["k1", "k2"])
    empty = Usage(np.zeros((2, 1, 1)), np.array([1.0, 0.0]))
    assert pair_differences(empty, rates([0.1], [0.2]), pairs).kept.tolist() == [True, False]
    nothing = Usage(np.zeros((2, 1, 1)), np.zeros(2))
    with pytest.raises(BadInputError, match="no matched pair has routed tokens on both sides"):
        pair_differences(nothing, rates([0.1], [0.2]), pairs)


def test_pairs_are_one_group_where_a_prompt_of_one_repeats_a_prompt_of_the_other():
    pairs = match(["k1", "k2", "k3", "k4", None], ["k4", "k3", "k2", "k1"])
    # The harmful prompts of k1 and k2 are alike, and the controls of k2 and k3; so is a prompt without a pair to k4's.
    groups = pair_groups(pairs, np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 2]))
    assert groups[0] == groups[1] == groups[2] != groups[3]
