"""Pairs of experts, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.analysis.coactivation import add_pairs, count_pairs, in_phase, pair_table, strongest
from harness.base.errors import BadInputError
from harness.routing.counts import PHASES
from harness.routing.tokens import RoutedTokens, usage

# Four tokens, two layers, k = 2 of 4 experts.
EXPERTS = np.array(
    [
        [[0, 1], [2, 3]],
        [[1, 0], [2, 1]],
        [[0, 2], [2, 3]],
        [[3, 2], [0, 1]],
    ],
    dtype=np.uint8,
)


def tokens_of(lengths: list[tuple[int, int]], experts: np.ndarray | None = None) -> RoutedTokens:
    """Prompts of so many prompt and answer tokens."""
    total = sum(map(sum, lengths))
    if experts is None:
        generator = np.random.default_rng(0)
        experts = np.argsort(generator.random((total, 3, 8)), axis=-1)[..., :2].astype(np.uint8)
    return RoutedTokens(
        ids=tuple(f"p{i}" for i in range(len(lengths))),
        offsets=np.cumsum([0, *map(sum, lengths)]),
        prompt_tokens=np.array([prompt for prompt, _ in lengths], dtype=np.int32),
        token_ids=np.arange(total, dtype=np.int32),
        experts=experts,
        weights=np.full(experts.shape, 0.5, dtype=np.float16),
    )


def test_pairs_within_a_layer_are_counted_whatever_their_order():
    pairs = count_pairs(EXPERTS, 4)
    assert pairs.tokens == 4
    assert pairs.within[0].tolist() == [[3, 2, 1, 0], [2, 2, 0, 0], [1, 0, 2, 1], [0, 0, 1, 1]]
    assert pairs.used.tolist() == [[3, 2, 2, 1], [1, 2, 3, 2]]


def test_pairs_between_layers_go_from_the_earlier_to_the_later():
    pairs = count_pairs(EXPERTS, 4)
    # Expert 0 of the first layer serves tokens 0, 1 and 2; those go to 2 three times, to 3 twice, to 1 once.
    assert pairs.between[0][0].tolist() == [0, 1, 3, 2]
    assert pairs.between[0][3].tolist() == [1, 1, 0, 0]


def test_counts_agree_with_a_loop_over_tokens():
    experts = tokens_of([(20, 20)]).experts
    pairs = count_pairs(experts, 8)
    within, between = np.zeros((3, 8, 8), int), np.zeros((2, 8, 8), int)
    for token in experts:
        for layer in range(3):
            for i in token[layer]:
                for j in token[layer]:
                    within[layer, i, j] += 1
                for j in token[layer + 1] if layer < 2 else ():
                    between[layer, i, j] += 1
    assert (pairs.within == within).all()
    assert (pairs.between == between).all()


def test_tasks_add_up():
    whole, parts = (
        count_pairs(EXPERTS, 4),
        add_pairs(count_pairs(EXPERTS[rows], 4) for rows in ([0, 1], [2, 3])),
    )
    assert parts.tokens == whole.tokens
    assert all((a == b).all() for a, b in zip(parts[:3], whole[:3], strict=True))


def test_excess_is_what_was_observed_less_what_independence_predicts():
    harmful, benign = count_pairs(EXPERTS, 4), count_pairs(EXPERTS[2:], 4)
    table = pair_table([3, 7], harmful, benign).set_index(["layer", "expert", "other_layer", "other_expert"])
    row = table.loc[(3, 0, 3, 1)]
    assert row["observed_harmful"] == pytest.approx(2 / 4)
    assert row["expected_harmful"] == pytest.approx(3 / 4 * 2 / 4)
    assert row["excess_harmful"] == pytest.approx(0.125)
    # Tokens 2 and 3 have the pairs 0+2 and 3+2: expert 1 is not used.
    assert row["observed_benign"] == row["expected_benign"] == 0
    assert row["difference"] == pytest.approx(0.125)
    across = table.loc[(3, 0, 7, 2)]
    assert across["excess_harmful"] == pytest.approx(3 / 4 - 3 / 4 * 3 / 4)
    assert across["excess_benign"] == pytest.approx(1 / 2 - 1 / 2 * 1 / 2)


def test_a_pair_within_a_layer_stands_once_and_unseen_pairs_not_at_all():
    pairs = count_pairs(EXPERTS, 4)
    table = pair_table([0, 1], pairs, pairs)
    within = table[table["layer"] == table["other_layer"]]
    assert (within["expert"] < within["other_expert"]).all()
    seen = within[within["layer"] == 0][["expert", "other_expert"]].to_numpy().tolist()
    assert sorted(seen) == [[0, 1], [0, 2], [2, 3]]
    assert (table["difference"] == 0).all()


def test_independent_experts_have_no_excess_between_layers():
    # Each of the two experts of layer 0 meets each of layer 1 equally often.
    experts = np.array([[[i], [j]] for i in (0, 1) for j in (0, 1)], dtype=np.uint8)
    pairs = count_pairs(experts, 2)
    table = pair_table([0, 1], pairs, pairs)
    assert table["excess_harmful"].abs().max() == 0


def test_the_strongest_pairs_come_first():
    harmful, benign = count_pairs(EXPERTS, 4), count_pairs(EXPERTS[2:], 4)
    table = pair_table([0, 1], harmful, benign)
    for within in (True, False):
        sizes = strongest(table, 3, within=within)["difference"].abs()
        assert sizes.is_monotonic_decreasing
        rest = table[(table["layer"] == table["other_layer"]) == within]["difference"].abs()
        assert sizes.iloc[0] == rest.max()


@pytest.mark.parametrize("phase", PHASES)
def test_a_phases_tokens_are_those_that_capture_counts(phase):
    tokens = tokens_of([(6, 5), (2, 1), (3, 0)])
    expected = {"prompt": [6, 2, 3], "generation": [5, 1, 0], "all": [11, 3, 3], "decision": [8, 3, 3]}
    expected |= {"reasoning": [0, 0, 0], "answer": expected["generation"]}
    assert (usage(tokens, 8, in_phase(tokens, phase)).sum(axis=-1)[:, 0] / 2).tolist() == expected[phase]
    # Three tokens of reasoning before the first answer, one before the second, and no third answer.
    thought = replace(tokens, answer_at=np.array([3, 1, -1], dtype=np.int32))
    expected |= {"reasoning": [3, 1, 0], "answer": [2, 0, 0], "decision": [6, 3, 0]}
    assert (usage(thought, 8, in_phase(thought, phase)).sum(axis=-1)[:, 0] / 2).tolist() == expected[phase]


def test_a_group_without_tokens_is_refused():
    some, none = count_pairs(EXPERTS, 4), count_pairs(EXPERTS[:0], 4)
    with pytest.raises(BadInputError, match="the benign prompts have no routed token in this phase"):
        pair_table([0, 1], some, none)


def test_one_layer_has_no_neighbours():
    pairs = count_pairs(EXPERTS[:, :1], 4)
    table = pair_table([5], pairs, pairs)
    assert (table["other_layer"] == 5).all()
    assert strongest(table, 3, within=False).empty
