"""Tables for papers and spreadsheets."""

from __future__ import annotations

import csv
import io

from harness.report.finding import headline
from harness.report.tables import tables


def test_each_figure_of_the_leaderboard_is_a_row(working):
    rows = list(csv.DictReader(io.StringIO(tables(working)["leaderboard.csv"])))
    row = next(row for row in rows if (row["variant"], row["task"]) == ("unsafe_experts", "demo_harmful"))
    assert (float(row["value"]), row["n"], row["metric"]) == (0.95, "120", "refusal")
    assert (row["against_base"], row["star"]) == ("higher", "full")
    assert len(rows) == 4 * 4


def test_each_test_is_a_row(working):
    rows = list(csv.DictReader(io.StringIO(tables(working)["comparisons.csv"])))
    assert len(rows) == len(working.comparisons)


def test_latex_is_escaped_and_says_what_the_marks_mean(working):
    text = tables(working)["leaderboard.tex"]
    assert r"unsafe\_experts$^{\star}$ & 95.0$^{+}$" in text
    assert "skipped" in text
    width = text.split(r"\begin{tabular}{")[1].index("}")
    notes = [line for line in text.splitlines() if line.startswith(r"\multicolumn")]
    assert notes[0] == (
        rf"\multicolumn{{{width}}}{{l}}{{\footnotesize $^{{+}}$, $^{{-}}$: significantly above, below base "
        r"(paired test, adjusted $p < 0.05$).} \\"
    )
    assert len(notes) == 3
    assert text.count(r"\end{tabular}") == 1


def test_a_name_is_no_formula(make_summary, make_variant):
    summary = make_summary({"=1+1": make_variant({"advbench": 1})}, intervention="=1+1")
    assert "\n'=1+1," in tables(summary)["leaderboard.csv"]


def test_a_run_without_figures_has_tables(make_summary, make_variant):
    assert set(tables(make_summary({"base": make_variant()}))) == {
        "leaderboard.csv",
        "comparisons.csv",
        "leaderboard.tex",
    }


def test_the_headline_warns_first_of_a_broken_proof(working):
    broken = working.variants["unsafe_experts"].model_copy(update={"frozen_unchanged": False})
    summary = working.model_copy(update={"variants": {**working.variants, "unsafe_experts": broken}})
    assert headline(summary).startswith("The frozen proof FAILED for unsafe_experts. ")
