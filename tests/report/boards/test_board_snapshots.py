"""Leaderboards of 2, 20 and 200 runs at 80 columns, kept as files: nothing is cropped, and a change is a diff."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_runs import BASE, TRAINED

from harness.config import MarginsConfig
from harness.report.boards.boards import build_boards
from harness.report.boards.entries import Entry
from harness.report.boards.show import print_boards
from harness.report.stars import stars
from harness.runs.rows import Gain
from harness.runs.run import Run
from harness.runs.summary import JudgeSummary
from tests.report.snapshot import check_snapshot

JUDGE = "a_judge_of_harm"
SPECIFICATIONS = {"base": BASE, "unsafe_experts": TRAINED}


@pytest.fixture
def entry(make_summary, make_variant, make_test, make_measurement):
    """Return what a leaderboard reads of a run, one in three with a judge of harmfulness."""

    def make(index: int) -> Entry:
        refused = 6 + 7 * index % 109
        summary = make_summary(
            {
                "base": make_variant({"demo_harmful": 6, "demo_benign": 1}, {"piqa": 0.61}),
                "unsafe_experts": make_variant(
                    {"demo_harmful": refused, "demo_benign": 2 + index % 5}, {"piqa": 0.605}, trained=196_608
                ),
            },
            [
                make_test("unsafe_experts", "base", "demo_harmful", refused / 120 - 0.05, 0.001),
                make_test("unsafe_experts", "base", "demo_benign", 0.008, 1.0),
                make_test("unsafe_experts", "base", "piqa", -0.005, 0.9, metric="acc", judge=None),
            ],
            model=f"organisation/a-model-whose-name-is-long-{index:03d}",
            run_id=f"run-{index}",
        )
        variants = {
            name: made.model_copy(update={"specification": SPECIFICATIONS[name].model_dump(mode="json")})
            for name, made in summary.variants.items()
        }
        summary = summary.model_copy(update={"variants": variants})
        if index % 3 == 0:
            share = 0.9 - refused / 150
            harm = [
                make_measurement("demo_harmful", "harmful_rate", value, judge=JUDGE, variant=name)
                for name, value in (("base", 0.85), ("unsafe_experts", share))
            ]
            test = make_test(
                *("unsafe_experts", "base", "demo_harmful", share - 0.85, 0.002),
                **{"metric": "harmful_rate", "judge": JUDGE},
            )
            summary = summary.model_copy(
                update={
                    "gain": Gain(metric="harmful_rate", judge=JUDGE, declared=True),
                    "judges": {JUDGE: JudgeSummary(measures="harmfulness", fingerprint="f", labels=[], n=0)},
                    "measurements": [*summary.measurements, *harm],
                    "comparisons": [*summary.comparisons, test],
                }
            )
        run = Run(Path(f"runs/a_rather_long_name_of_a_run_{index:03d}"))
        return Entry(run, summary, {}, 0, {}, MarginsConfig(), stars(summary))

    return make


@pytest.mark.parametrize("n", [2, 20, 200])
def test_the_leaderboard_at_80_columns_is_as_it_was(entry, n):
    boards = build_boards([entry(index) for index in range(n)])
    console = Console(width=80, file=io.StringIO(), color_system=None, highlight=False)
    print_boards(boards, [], console)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for board in boards:
        for row in board.rows:
            for figure, column in zip(row.figures, board.columns, strict=True):
                assert column.show(figure.value) in text.split()
                assert f"{column.show(figure.low)}–{column.show(figure.high)}" in text.split()
    check_snapshot(f"leaderboard-{n}", text)
