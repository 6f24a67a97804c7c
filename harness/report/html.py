"""report.html: one file that asks nothing of any server and shows what a model wrote as text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.report.cards import Card
from harness.report.charts import curves, rows
from harness.report.charts.carry import carried
from harness.report.charts.drawing import Chart, Styles, styles_of
from harness.report.charts.heatmap import heat_maps
from harness.report.charts.routes import routes_kept
from harness.report.charts.trade_off import points_of, trade_off
from harness.report.columns import Column, gain_columns
from harness.report.facts import categories, facts
from harness.report.finding import find
from harness.report.leaderboard import Leaderboard
from harness.report.page import render_fragment, render_page
from harness.report.samples import browser_data, flips, samples_of
from harness.report.table import table_of
from harness.report.tags import tag_tables
from harness.runs.rows import BASE, HARMFUL
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
    content = facts(run, summary)
    styles = styles_of(summary)
    samples = samples_of(run, summary)
    chosen, harm_judge = summary.selection, summary.primary_of("harmfulness")
    experts = {(expert.layer, expert.expert) for expert in chosen.experts} if chosen else set()
    table = run.experts() if run.layout.experts.exists() else None
    board = content["board"]
    trade_offs = _trade_offs(board, gain_columns(summary, board.columns), styles)
    first = _of_first_card(trade_offs, content["found"].cards)
    return render_page(
        "report.html.j2",
        ["page.js", "samples.js"],
        **content,
        strips=[rows.strip(card) for card in content["found"].cards],
        trade_off=first,
        trade_offs=[chart for _, chart in trade_offs if chart is not first],
        claims=[chart for claim in summary.claims if (chart := rows.draws(claim)) is not None],
        capabilities=[
            chart
            for column in board.columns
            if column.kind == "capability"
            and column.decides
            and (chart := rows.capability(board, column, styles)) is not None
        ],
        categories={
            key: table_of(each, f"{key[0]}: refused of scored answers")
            for key, each in categories(samples, _apart(summary)).items()
        },
        tags=tag_tables(samples, _apart(summary)),
        maps=[] if table is None else heat_maps(table, experts, chosen.phase if chosen else None),
        profile=None
        if table is None or chosen is None
        else curves.profile(table[table["phase"] == chosen.phase], experts),
        tokens=[row for row in run.token_shares() if not (redact and row.kind == "harmful")],
        losses=curves.losses({name: run.training(name) for name in summary.variants}, styles),
        carried=[carried(name, carry) for name in summary.variants if (carry := run.carry(name)) is not None],
        kept=routes_kept(
            {name: found.figures for name in summary.variants if (found := run.routes(name)) is not None},
            styles,
        ),
        tasks=samples,
        flips=table_of(
            flips(samples, summary.intervention),
            f"Verdicts of {summary.intervention} beside {BASE}'s, prompt by prompt",
        ),
        flips_of_harm=table_of(
            flips(samples, summary.intervention, "harmfulness") if summary.gain_metric == HARMFUL else [],
            f"Harmful answers of {summary.intervention} beside {BASE}'s by {harm_judge}, prompt by prompt",
        ),
        data=browser_data(samples, list(summary.variants), summary.intervention, redact),
        redacted=redact,
        config=json.dumps(run.content, indent=2, ensure_ascii=False) if run.layout.run.exists() else None,
    )


def render_finding(path: Path, summary: Summary) -> str:
    """Return the headline and cards as a piece of HTML for a notebook, which carries its style and asks for nothing."""
    found = find(summary)
    return render_fragment(
        "notebook.html.j2",
        path=str(path),
        summary=summary,
        found=found,
        strips=[rows.strip(card) for card in found.cards],
        trade_off=None,
    )


def _apart(summary: Summary) -> list[str]:
    """Return the variants that tables by category have columns for: all, but for several random draws."""
    others = [name for name, variant in summary.variants.items() if not variant.is_draw]
    return list(summary.variants) if len(summary.variants) - len(others) < 2 else others


def _trade_offs(board: Leaderboard, gains: Sequence[Column], styles: Styles) -> list[tuple[Column, Chart]]:
    """Return a chart per figure that gains rest on, where there is something to draw."""
    sized = next((column for column in board.columns if column.kind == "capability" and column.decides), None)
    charts = []
    for column in gains:
        chart = trade_off(points_of(board, column, sized, styles), column, sized) if column.is_share else None
        if chart is not None:
            charts.append((column, chart))
    return charts


def _of_first_card(charts: list[tuple[Column, Chart]], cards: Sequence[Card]) -> Chart | None:
    wanted = cards[0].column if cards else None
    return next((chart for column, chart in charts if column == wanted), charts[0][1] if charts else None)
