"""report.html: one file that asks nothing of any server and shows what a model wrote as text."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness.content import content_folder
from harness.report import charts, facts, judging, leaderboard
from harness.report.conclusion import conclude
from harness.report.folder import RunFiles
from harness.report.heatmap import heat_maps
from harness.report.leaderboard import BEST_RULE, MARKS_RULE, Leaderboard
from harness.report.samples import samples_of
from harness.report.words import duration, percent, visible
from harness.store.summary import Summary


def render_html(run: Path, summary: Summary) -> str:
    """Return the run's report as one HTML page.

    Raises:
        BadInputError: a file of the run folder is there and cannot be read.
    """
    files = RunFiles(run)
    record = files.run()
    folder = content_folder("reports")
    style = (folder / "style.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    board, tests = leaderboard.build(summary), facts.tests(summary)
    return environment.get_template("report.html.j2").render(
        summary=summary,
        style=Markup(style),
        policy=_policy(style),
        sentences=conclude(summary),
        board=board,
        marks_rule=MARKS_RULE,
        best_rule=BEST_RULE,
        trade_offs=_trade_offs(board, summary),
        capabilities=_capabilities(board, summary),
        maps=_maps(files, summary),
        top=facts.TOP_EXPERTS,
        acted=facts.acted(files, summary),
        own_tests=[test for test in tests if test.variant == summary.intervention],
        other_tests=[test for test in tests if test.variant != summary.intervention],
        others=facts.other_measurements(summary),
        judges=judging.judges(summary),
        rates=judging.rates(summary),
        not_corrected=judging.not_corrected(summary),
        agreement=judging.agreement(summary),
        losses=_losses(files, summary),
        timing=facts.timing(summary),
        total=duration(sum(summary.seconds.values())),
        samples=samples_of(files, summary),
        command=facts.command(record),
        versions=facts.versions(summary, record),
        seeds=json.dumps(summary.seeds, ensure_ascii=False),
        decoding=json.dumps(summary.decoding, ensure_ascii=False),
        config=None if record is None else json.dumps(record, indent=2, ensure_ascii=False),
    )


def _finalize(value: Any) -> Any:
    return visible(value, lines=True) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _policy(style: str) -> str:
    """Return a content-security policy that allows this style sheet: no script, no request."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _trade_offs(board: Leaderboard, summary: Summary) -> list[tuple[str, Markup]]:
    drawn = [
        (column.task, charts.trade_off(board, column, summary.intervention))
        for column in board.columns
        if column.kind == "harmful"
    ]
    return [(task, chart) for task, chart in drawn if chart is not None]


def _capabilities(board: Leaderboard, summary: Summary) -> list[tuple[str, Markup]]:
    drawn = [
        (column.task, charts.capability(board, column, summary.intervention))
        for column in board.columns
        if column.kind == "capability"
    ]
    return [(task, chart) for task, chart in drawn if chart is not None]


def _maps(files: RunFiles, summary: Summary) -> list[Any]:
    table = files.experts()
    if table is None:
        return []
    chosen = summary.selection
    experts = {(expert.layer, expert.expert) for expert in chosen.experts} if chosen else set()
    return list(heat_maps(table, experts, chosen.phase if chosen else None))


def _losses(files: RunFiles, summary: Summary) -> Markup | None:
    curves = {name: steps for name in summary.variants if (steps := files.training(name)) is not None}
    return charts.losses(curves, summary.intervention)
