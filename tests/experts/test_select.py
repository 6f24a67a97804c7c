"""Selection: the highest scores, in an order that nothing but the table decides."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.experts.select import Limits, select_experts


def table_of(scores, phase="all", per_layer=4) -> pd.DataFrame:
    rows = [(phase, 1 + i // per_layer, i % per_layer, score) for i, score in enumerate(scores)]
    return pd.DataFrame(rows, columns=["phase", "layer", "expert", "risk_diff"])


TABLE = table_of([0.1, -0.2, 0.3, 0.0, 0.3, 0.05, -0.3, 0.2])


def pairs(selection):
    return [tuple(expert) for expert in selection.experts]


def test_top_k_takes_the_highest_ties_by_layer_and_expert():
    assert pairs(select_experts(TABLE, phase="all", limits=Limits(top_k=3))) == [(1, 2), (2, 0), (2, 3)]


def test_threshold_takes_all_that_reach_it():
    found = select_experts(TABLE, phase="all", limits=Limits(threshold=0.1))
    assert pairs(found) == [(1, 2), (2, 0), (2, 3), (1, 0)]


def test_both_take_the_highest_of_those_that_reach_it():
    assert pairs(select_experts(TABLE, phase="all", limits=Limits(top_k=2, threshold=0.1))) == [
        (1, 2),
        (2, 0),
    ]
    assert pairs(select_experts(TABLE, phase="all", limits=Limits(top_k=6, threshold=0.25))) == [
        (1, 2),
        (2, 0),
    ]


def test_only_the_phase_asked_for_counts():
    both = pd.concat([TABLE, table_of([9.0] * 8, phase="prompt")])
    assert pairs(select_experts(both, phase="all", limits=Limits(top_k=1))) == [(1, 2)]


def test_by_layer_is_sorted_and_experts_are_plain_numbers():
    found = select_experts(TABLE, phase="all", limits=Limits(top_k=8))
    assert found.by_layer() == {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]}
    assert {type(part) for expert in found.experts for part in expert} == {int}


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.sampled_from([-0.5, 0.0, 0.1, 0.25, 0.5]), min_size=8, max_size=8),
    k=st.integers(1, 8),
    seed=st.integers(0, 5),
)
def test_selection_does_not_depend_on_the_order_of_rows_and_keeps_the_highest(scores, k, seed):
    table = table_of(scores)
    found = select_experts(table, phase="all", limits=Limits(top_k=k))
    assert found == select_experts(
        table.sample(frac=1, random_state=seed), phase="all", limits=Limits(top_k=k)
    )
    assert len(set(found.experts)) == k
    score = {(row.layer, row.expert): row.risk_diff for row in table.itertuples()}
    kept = [score[pair] for pair in pairs(found)]
    assert kept == sorted(scores, reverse=True)[:k]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give top_k, threshold, per_layer, top_p or max_q"),
        ({"top_k": 0}, "selection.top_k = 0: expected 1 to 8"),
        ({"top_k": 9}, "selection.top_k = 9: expected 1 to 8"),
        ({"threshold": 0.31}, "no expert is left by selection.threshold = 0.31: the highest .* is 0.3000"),
        ({"top_k": 1, "phase": "prompt"}, "the expert table has no phase 'prompt': it has all"),
        ({"top_k": 1, "method": "risk_dif"}, "unknown selection method 'risk_dif': did you mean 'risk_diff'"),
    ],
)
def test_what_cannot_be_selected_is_refused(settings, message):
    limits = Limits(settings.get("top_k"), settings.get("threshold"))
    others = {name: value for name, value in settings.items() if name in ("phase", "method")}
    with pytest.raises(BadInputError, match=message):
        select_experts(TABLE, limits=limits, **{"phase": "all", **others})
