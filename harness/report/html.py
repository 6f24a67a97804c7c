"""report.html: one file that asks nothing of any server and shows what a model wrote as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from harness.report import charts, facts, judging, leaderboard
from harness.report.categories import by_category
from harness.report.conclusion import conclude
from harness.report.headline import headline
from harness.report.heatmap import heat_maps
from harness.report.leaderboard import BEST_RULE, MARKS_RULE, Leaderboard
from harness.report.page import render_page
from harness.report.samples import browser_data, samples_of
from harness.report.words import duration
from harness.runs.run import Run
from harness.runs.summary import Summary


def render_html(path: Path, summary: Summary, redact: bool = False) -> str:
    """Return the run's report as one HTML page.

    Args:
        path: the run folder.
        summary: its summary.
        redact: leave out prompts and answers of harmful tasks.

    Raises:
        BadInputError: a file of the run folder is there and cannot be read.
    """
    run = Run(path)
    record = run.record if run.layout.run.exists() else None
    board, tests = leaderboard.build(summary), facts.tests(summary)
    samples = samples_of(run, summary)
    return render_page(
        "report.html.j2",
        ["samples.js"],
        summary=summary,
        headline=headline(summary),
        sentences=conclude(summary),
        board=board,
        marks_rule=MARKS_RULE,
        best_rule=BEST_RULE,
        trade_offs=_trade_offs(board, summary),
        capabilities=_capabilities(board, summary),
        categories=by_category(samples, list(summary.variants)),
        maps=_maps(run, summary),
        profile=_profile(run, summary),
        tokens=[row for row in run.token_shares() if not (redact and row.kind == "harmful")],
        top=facts.TOP_EXPERTS,
        acted=facts.acted(run, summary),
        drifts=facts.drifts(summary),
        own_tests=[test for test in tests if test.variant == summary.intervention],
        other_tests=[test for test in tests if test.variant != summary.intervention],
        others=facts.other_measurements(summary),
        judges=judging.judges(summary),
        rates=judging.rates(summary),
        not_corrected=judging.not_corrected(summary),
        agreement=judging.agreement(summary),
        losses=_losses(run, summary),
        timing=facts.timing(summary),
        total=duration(sum(summary.seconds.values())),
        tasks=samples,
        data=browser_data(samples, list(summary.variants), redact),
        redacted=redact,
        command=facts.command(record),
        versions=facts.versions(summary, record),
        seeds=json.dumps(summary.seeds, ensure_ascii=False),
        decoding=json.dumps(summary.decoding, ensure_ascii=False),
        config=None if record is None else json.dumps(run.content, indent=2, ensure_ascii=False),
    )


def _trade_offs(board: Leaderboard, summary: Summary) -> list[tuple[str, Markup]]:
    drawn = [
        (column.task, charts.trade_off(board, column, charts.styles_of(summary)))
        for column in board.columns
        if column.kind == "harmful" and column.decides
    ]
    return [(task, chart) for task, chart in drawn if chart is not None]


def _capabilities(board: Leaderboard, summary: Summary) -> list[tuple[str, Markup]]:
    drawn = [
        (column.task, charts.capability(board, column, charts.styles_of(summary)))
        for column in board.columns
        if column.kind == "capability"
    ]
    return [(task, chart) for task, chart in drawn if chart is not None]


def _maps(run: Run, summary: Summary) -> list[Any]:
    if not run.layout.experts.exists():
        return []
    chosen = summary.selection
    experts = {(expert.layer, expert.expert) for expert in chosen.experts} if chosen else set()
    return list(heat_maps(run.experts(), experts, chosen.phase if chosen else None))


def _profile(run: Run, summary: Summary) -> Markup | None:
    chosen = summary.selection
    if chosen is None or not run.layout.experts.exists():
        return None
    table = run.experts()
    experts = {(expert.layer, expert.expert) for expert in chosen.experts}
    return charts.profile(table[table["phase"] == chosen.phase], experts)


def _losses(run: Run, summary: Summary) -> Markup | None:
    curves = {name: steps for name in summary.variants if (steps := run.training(name))}
    return charts.losses(curves, charts.styles_of(summary))
