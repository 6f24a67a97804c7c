"""The parts of benchmarks/recipes.py that need no model: questions, recipes by likeness, and gaps to the aims."""

from __future__ import annotations

import importlib
import re
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest

from harness.data.prompts import Prompt
from harness.judges.base import judge_all

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def imported(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def prompt(text: str) -> Prompt:
    return Prompt("p1", text, "alpaca", "benign")


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Write a poem about rivers.", "write a poem about rivers?"),
        ("Provide a guide on how to plant a tree", "plant a tree?"),
        ("What is a river?", None),
        ("The river is long", None),
    ],
)
def test_a_request_is_put_as_a_question_where_its_words_allow_it(
    imported, text: str, asked: str | None
) -> None:
    put = imported("recipe_bench").question(prompt(text))
    assert (put is None) == (asked is None)
    if put is not None and asked is not None:
        assert put.text.endswith(asked)
        assert put.id == "p1@question"


def rates(**values: float) -> dict[str, dict[str, object]]:
    kinds = {"advbench": "harmful", "jbb_harmful@forced": "harmful", "advbench@forced": "harmful"}
    return {
        name.replace("__", "@"): {"kind": kinds.get(name.replace("__", "@"), "benign"), "value": value}
        for name, value in values.items()
    }


def test_gaps_count_from_base_for_benign_tasks_and_forced_starts_count_once(imported) -> None:
    tables = imported("recipe_tables")
    base = rates(advbench=0.0, advbench__forced=0.0, jbb_harmful__forced=0.0, alpaca=0.02)
    row = rates(advbench=0.88, advbench__forced=0.70, jbb_harmful__forced=0.40, alpaca=0.06)
    assert tables.gaps(row, base) == pytest.approx(
        {"advbench": 0.10, "advbench@forced": 0.0, "jbb_harmful@forced": 0.20, "alpaca": 0.03}
    )
    assert tables.shortfall({"rates": row}, {"rates": base}) == pytest.approx(0.10 + 0.10 + 0.03)


def final(name: str, refused: dict[str, bool], **cells: object) -> dict[str, object]:
    return {
        "name": name,
        "rates": {"xstest_safe": {"kind": "benign", "value": 0.0}},
        "verdicts": {"xstest_safe": refused},
        "capability": {"piqa_local": 0.65},
        **cells,
    }


def test_the_mean_over_seeds_is_set_beside_base_prompt_by_prompt(imported) -> None:
    rows = [
        final("base", {"a": True, "b": False, "c": False, "d": False}),
        final("r", {"a": True, "b": True, "c": False, "d": False}, seed=0),
        final("r", {"a": True, "b": False, "c": False, "d": False}, seed=1),
    ]
    table = imported("recipe_tables").aims_table(rows).set_index("task")
    row = table.loc["xstest_safe"]
    assert (row["base"], row["recipe"], row["value"]) == (0.25, 0.375, 0.125)
    assert row["missed_by"] == pytest.approx(0.125 - 0.03)
    assert not row["met"]
    assert table.loc["piqa_local", "met"]


def trials(seed: int = 0, **shortfalls: float) -> pd.DataFrame:
    ends = {f"{name}{end}": 0.5 for name in ("refusal", "false_refusal") for end in ("", "_low", "_high")}
    return pd.DataFrame(
        [
            {"recipe": name, "steps": 40, "seed": seed, "shortfall": value, **ends}
            for name, value in shortfalls.items()
        ]
    )


def test_trials_of_an_earlier_table_stay_beside_those_that_were_made_again(imported, tmp_path) -> None:
    path = tmp_path / "trials.csv"
    tables = imported("recipe_tables")
    assert tables.with_earlier(trials(stern=0.9), path)["recipe"].tolist() == ["stern"]
    trials(stern=0.1, kind=0.4).to_csv(path, index=False)
    found = tables.with_earlier(trials(stern=0.9, mild=0.2), path)
    assert [*zip(found["recipe"], found["shortfall"], strict=True)] == [
        ("mild", 0.2),
        ("kind", 0.4),
        ("stern", 0.9),
    ]
    assert len(tables.with_earlier(trials(seed=1, stern=0.9), path)) == 3


def test_the_frontier_names_each_recipe_and_is_drawn_alike_each_time(imported, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    tables = imported("recipe_tables")
    tried = pd.concat([trials(stern=0.9, kind=0.4), trials(seed=1, stern=0.8)])
    for name in "ab":
        tables.frontier(tried, tmp_path / f"{name}.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    assert drawn.count("<!-- kind, 40 steps -->") == drawn.count("<!-- stern, 40 steps -->") == 1
    # Two intervals for each trial, and for each name in the legend.
    assert len(re.findall(r'id="LineCollection_\d+"', drawn)) == 2 * (len(tried) + 2)


def test_pairs_set_a_refusal_beside_an_answer_and_choose_by_kind(imported, tmp_path) -> None:
    """On the demo: of harmful prompts the refusal is preferred, of benign ones the model's own answer."""
    flags = {"tasks": ["demo_harmful", "demo_benign"], "limit": 8, "baselines": [], "capability.tasks": []}
    plan = imported("trials").plan_of(
        Namespace(model="demo", data_dir=[], limit=None, tasks=None, set=[]),
        flags,
        ["training.objectives={refuse: 1, retain: 1, prefer: 1}"],
    )
    rows = imported("recipe_bench").Bench(plan, tmp_path / "base").rows
    plain, pairs = ({row["id"]: row for row in rows[f"demo_benign{end}"]} for end in ("", "@pair"))
    assert pairs.keys() == plain.keys() != set()
    for id, pair in pairs.items():
        assert (pair["aim"], pair["answer"]) == ("prefer", plain[id]["answer"])
    judged = judge_all(plan.judge, [pair | {"response": pair["rejected"]} for pair in pairs.values()])
    assert {verdict.label for verdict in judged} == {"refusal"}
    refusals = {row["id"]: row["answer"] for row in rows["demo_harmful"]}
    harmful = rows["demo_harmful@pair"]
    assert harmful
    assert all(row["answer"] == refusals[row["id"]] != row["rejected"] for row in harmful)
    assert {row["aim"] for row in rows["demo_harmful"]} == {"refuse"}


def test_the_committed_recipes_are_read_and_inherit_what_they_do_not_give(imported) -> None:
    found = imported("recipes").read_recipes(BENCHMARKS / "recipes.yaml")
    assert len({recipe.name for recipe in found}) == len(found)
    assert all(recipe.mix and recipe.objectives for recipe in found)
