"""Load balance, agreement and the profile by layer, computed by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from harness.analysis.agreement import agreement
from harness.analysis.balance import load_balance
from harness.analysis.layers import layer_profile
from harness.base.errors import BadInputError


def table_of(prompt: list[float], generation: list[float]) -> pd.DataFrame:
    """Two layers of experts with these scores."""
    half = len(prompt) // 2
    parts = [
        pd.DataFrame(
            {
                "phase": phase,
                "layer": [2] * half + [4] * half,
                "expert": [*range(half), *range(half)],
                "risk_diff": scores,
            }
        )
        for phase, scores in (("prompt", prompt), ("generation", generation))
    ]
    return pd.concat(parts, ignore_index=True)


def test_balance_of_an_even_layer_and_of_a_single_expert():
    even, single = np.array([5, 5, 5, 5]), np.array([0, 7, 0, 0])
    balance = load_balance(np.stack([even, single]))
    assert balance.entropy == pytest.approx([1, 0])
    assert balance.gini == pytest.approx([0, 0.75])
    assert balance.max_share == pytest.approx([0.25, 1])


def test_balance_of_a_layer_in_between():
    balance = load_balance(np.array([[3, 1, 0, 0]]))
    expected = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(4)
    assert balance.entropy == pytest.approx([expected])
    # Mean absolute difference of all pairs over twice the mean: (3+3+2+1+1+0) * 2 / 16 / (2 * 1).
    assert balance.gini == pytest.approx([0.625])
    assert balance.max_share == pytest.approx([0.75])


def test_a_layer_without_routings_has_no_balance():
    balance = load_balance(np.array([[0, 0], [1, 1]]))
    assert np.isnan([balance.entropy[0], balance.gini[0], balance.max_share[0]]).all()
    assert balance.entropy[1] == 1


def test_agreement_of_equal_orders_is_whole_and_of_reversed_ones_is_opposite():
    scores = [0.4, 0.1, -0.2, -0.3]
    same = agreement(table_of(scores, [10 * x for x in scores]), 2)
    assert same.spearman == pytest.approx(1)
    assert (same.overlap, same.by_chance) == (2, 1.0)
    opposite = agreement(table_of(scores, [-x for x in scores]), 2)
    assert opposite.spearman == pytest.approx(-1)
    assert opposite.overlap == 0


def test_agreement_by_hand():
    # Ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * (0 + 0 + 1 + 1) / (4 * 15).
    found = agreement(table_of([1, 2, 3, 4], [1, 2, 4, 3]), 1)
    assert found.spearman == pytest.approx(0.8)
    assert found.overlap == 0
    assert found.by_chance == 0.25
    assert found.scores.loc[found.scores["prompt_top"], ["layer", "expert"]].to_numpy().tolist() == [[4, 1]]
    assert found.scores.loc[found.scores["generation_top"], ["layer", "expert"]].to_numpy().tolist() == [
        [4, 0]
    ]


def test_equal_scores_are_ordered_by_layer_and_expert_and_have_no_rank():
    found = agreement(table_of([1, 1, 1, 1], [1, 2, 4, 3]), 2)
    assert found.spearman is None
    assert found.scores["prompt_top"].tolist() == [True, True, False, False]


def test_a_top_of_more_experts_than_there_are_is_all_of_them():
    assert agreement(table_of([1, 2, 3, 4], [1, 2, 4, 3]), 50).k == 4


def test_agreement_needs_both_phases():
    table = table_of([1, 2, 3, 4], [1, 2, 4, 3])
    with pytest.raises(BadInputError, match="no phase 'generation'"):
        agreement(table[table["phase"] == "prompt"], 2)


def test_the_profile_of_each_layer():
    rows = table_of([0.3, -0.3, 0.1, -0.1], [0] * 4)[:4].assign(
        low=[0.2, -0.4, -0.1, -0.2], high=[0.4, -0.2, 0.3, 0]
    )
    profile = layer_profile(rows, [(2, 0), (2, 1)])
    assert profile.to_dict("records") == [
        {
            "layer": 2,
            "moved": 0.3,
            "top_expert": 0,
            "top": 0.3,
            "top_low": 0.2,
            "top_high": 0.4,
            "above": 1,
            "selected": 2,
        },
        {
            "layer": 4,
            "moved": 0.1,
            "top_expert": 0,
            "top": 0.1,
            "top_low": -0.1,
            "top_high": 0.3,
            "above": 0,
            "selected": 0,
        },
    ]


def test_a_table_without_intervals_has_a_profile_without():
    profile = layer_profile(table_of([0.3, -0.3, 0.1, -0.1], [0] * 4)[:4], [])
    assert profile["moved"].tolist() == [0.3, 0.1]
    assert profile[["top_low", "top_high", "above"]].isna().all(axis=None)
