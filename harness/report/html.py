"""report.html: one file that asks nothing of any server and shows what a model wrote as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from harness.report import charts
from harness.report.columns import Column
from harness.report.facts import categories, facts
from harness.report.heatmap import heat_maps
from harness.report.leaderboard import Leaderboard
from harness.report.page import render_page
from harness.report.samples import browser_data, samples_of
from harness.runs.rows import Kind
from harness.runs.run import Run
from harness.runs.summary import Summary

Draw = Callable[[Leaderboard, Column, charts.Styles], Markup | None]


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
    content = facts(run, summary)
    styles = charts.styles_of(summary)
    samples = samples_of(run, summary)
    chosen = summary.selection
    experts = {(expert.layer, expert.expert) for expert in chosen.experts} if chosen else set()
    table = run.experts() if run.layout.experts.exists() else None
    return render_page(
        "report.html.j2",
        ["samples.js"],
        **content,
        trade_offs=_drawn(charts.trade_off, content["board"], "harmful", styles),
        claims=[(claim, chart) for claim in summary.claims if (chart := charts.draws(claim)) is not None],
        capabilities=_drawn(charts.capability, content["board"], "capability", styles),
        categories=categories(samples, list(summary.variants)),
        maps=[] if table is None else heat_maps(table, experts, chosen.phase if chosen else None),
        profile=None
        if table is None or chosen is None
        else charts.profile(table[table["phase"] == chosen.phase], experts),
        tokens=[row for row in run.token_shares() if not (redact and row.kind == "harmful")],
        losses=charts.losses({name: run.training(name) for name in summary.variants}, styles),
        tasks=samples,
        data=browser_data(samples, list(summary.variants), redact),
        redacted=redact,
        config=json.dumps(run.content, indent=2, ensure_ascii=False) if run.layout.run.exists() else None,
    )


def _drawn(draw: Draw, board: Leaderboard, kind: Kind, styles: charts.Styles) -> list[tuple[str, Markup]]:
    """Return a chart per deciding column of a kind, with its task, where there is something to draw."""
    return [
        (column.task, chart)
        for column in board.columns
        if column.kind == kind and column.decides and (chart := draw(board, column, styles)) is not None
    ]
