"""Leaderboards for the terminal, Markdown, CSV, JSON and as one HTML page."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console, Group
from rich.text import Text

from harness.report.boards.boards import Board, BoardRow, Figure
from harness.report.boards.entries import LeftOut
from harness.report.charts.drawing import Chart
from harness.report.charts.trade_off import Point, trade_off
from harness.report.columns import KINDS, Column, Effect
from harness.report.leaderboard import rules
from harness.report.markdown import as_markdown as table_as_markdown
from harness.report.markdown import escape
from harness.report.page import render_page
from harness.report.stars import SIGNS
from harness.report.table import Head, Item, Table, Tone
from harness.report.tables import csv
from harness.report.terminal_table import lines_of
from harness.report.words import span, visible
from harness.runs.layout import Layout


def title(board: Board) -> str:
    """Return how many runs a table holds, and why they are not in the first one."""
    runs = f"{board.runs} run{'' if board.runs == 1 else 's'}"
    return runs if board.apart is None else f"{runs}, not comparable with the first table: {board.apart}"


def board_table(board: Board, page: Path | None = None) -> Table:
    """Return a board as a table, whose rows name their runs.

    Args:
        board: the rows.
        page: the page that the table is on, from which it links to the runs' reports.
    """
    heads = [
        Head("#", role="key", is_word=True),
        Head("variant", role="key", is_word=True, is_name=True),
        Head("model", is_word=True, is_name=True),
        Head("run", is_word=True, is_name=True),
        Head("settings", is_word=True),
        Head("seeds", is_word=True),
        Head("date", is_word=True),
        *(Head(column.task, column.measure) for column in board.columns),
    ]
    rows = tuple(_row(place, row, board, page) for place, row in enumerate(board.rows, 1))
    table = Table(f"{title(board)}; shares in percent", tuple(heads), rows)
    has_settings = any(row.settings for row in board.rows)
    return table.only(
        [place for place in range(len(heads)) if heads[place].name != "settings" or has_settings]
    )


def _row(place: int, row: BoardRow, board: Board, page: Path | None) -> tuple[Item, ...]:
    links = () if page is None else tuple((folder.name, _link(folder, page)) for folder in row.folders)
    sign = "" if row.star is None else SIGNS[row.star]
    return (
        Item(str(place), value=place),
        Item(row.variant, sign=sign, tone="strong" if row.star else ""),
        Item(row.model),
        Item(", ".join(folder.name for folder in row.folders), links=links),
        Item(row.settings),
        Item(" ".join(map(str, row.seeds))),
        Item(row.date),
        *(
            Item("skipped", tone="quiet") if row.skipped is not None else _figure(figure, column)
            for figure, column in zip(row.figures, board.columns, strict=True)
        ),
    )


def _link(folder: Path, page: Path) -> str:
    """Return the address of a run's report, as the page sees it; a colon in it begins no other scheme."""
    report = Layout(folder).html.resolve()
    return quote(os.path.relpath(report, page.resolve().parent))


def _figure(figure: Figure | None, column: Column) -> Item:
    if figure is None:
        return Item("no value", tone="quiet")
    spread = "" if figure.spread is None else f" ± {column.show(figure.spread)}"
    tones: dict[bool | None, Tone] = {True: "good", False: "bad", None: ""}
    effect: Effect = "undecided"
    if bool(figure.above) != bool(figure.below):
        effect = "higher" if figure.above else "lower"
    return Item(
        f"{column.show(figure.value)}{spread}",
        span(figure.low, figure.high, column.show),
        mark(figure),
        tone=tones[column.is_better(effect)],
        value=figure.value,
    )


def mark(figure: Figure) -> str:
    """Return the signs of significant differences from base; over several seeds with their number."""
    signs = (("▲", figure.above), ("▼", figure.below))
    return " ".join(f"{sign}{n if figure.n > 1 else ''}" for sign, n in signs if n)


def print_boards(
    boards: Sequence[Board], left_out: Sequence[LeftOut], console: Console | None = None
) -> None:
    """Print every table; what is the same in all rows is said once, above them."""
    console = console or Console(highlight=False)
    for board in boards:
        table, said = board_table(board).without_same(("model", "run", "settings", "seeds", "date"))
        console.print(Text(visible(title(board)), "bold"))
        if said:
            console.print(Text(visible(", ".join(f"{name} {text}" for name, text in said.items())), "dim"))
        console.print(Group(*lines_of(table, console.width), Text("")))
    for out in left_out:
        console.print(Text(f"left out: {visible(out.reason)}", "yellow"))
    console.print(Text(rules()["signs"], "dim"))
    console.print(Text(rules()["boards"], "dim"))


def as_markdown(boards: Sequence[Board], left_out: Sequence[LeftOut]) -> str:
    """Return the tables in GitHub's Markdown."""
    parts = ["# Leaderboard", ""]
    for board in boards:
        parts += [f"## {escape(title(board))}", "", table_as_markdown(board_table(board), most=None), ""]
    parts += [f"- left out: {escape(out.reason)}" for out in left_out]
    return "\n".join([*parts, "", escape(rules()["boards"]), ""])


def as_csv(boards: Sequence[Board]) -> str:
    """Return one line for each figure."""
    return csv(
        {
            "table": number,
            **{name: getattr(row, name) for name in ("model", "variant", "settings")},
            "runs": " ".join(folder.name for folder in row.folders),
            "date": row.date,
            "star": row.star or "",
            "seeds": " ".join(map(str, row.seeds)),
            **{"task": column.task, "kind": column.kind, "metric": column.name},
            **{name: getattr(figure, name, None) for name in ("value", "spread", "low", "high")},
            "n_seeds": figure.n if figure else 0,
            "above_base": figure.above if figure else 0,
            "below_base": figure.below if figure else 0,
        }
        for number, board in enumerate(boards, 1)
        for row in board.rows
        for column, figure in zip(board.columns, row.figures, strict=True)
    )


def as_json(boards: Sequence[Board], left_out: Sequence[LeftOut]) -> dict[str, Any]:
    """Return the tables for programs."""
    return {
        "schema_version": 1,
        "tables": [
            {
                "apart": board.apart,
                "runs": board.runs,
                "rows": [
                    {
                        **{
                            name: getattr(row, name)
                            for name in ("model", "variant", "settings", "skipped", "star", "date")
                        },
                        "seeds": list(row.seeds),
                        "runs": list(row.runs),
                        "folders": [str(folder) for folder in row.folders],
                        "figures": {
                            _key(column): figure
                            and {"kind": column.kind, "metric": column.name, **asdict(figure)}
                            for column, figure in zip(board.columns, row.figures, strict=True)
                        },
                    }
                    for row in board.rows
                ],
            }
            for board in boards
        ],
        "left_out": [{"path": str(out.path), "reason": out.reason} for out in left_out],
    }


def _key(column: Column) -> str:
    """Return the name of a figure: its task; of a metric beside the one that decides, both."""
    return column.task if column.decides else f"{column.task} {column.name}"


def as_html(boards: Sequence[Board], left_out: Sequence[LeftOut], page: Path = Path("board.html")) -> str:
    """Return one page, whose rows can be sorted and filtered and lead to their runs' reports.

    Args:
        boards: the tables.
        left_out: runs that are in none.
        page: where the page will be.
    """
    return render_page(
        "leaderboards.html.j2",
        ["page.js", "leaderboards.js"],
        boards=[(title(board), _for_page(board, page), chart(board)) for board in boards],
        left_out=left_out,
        rules=rules(*(board.gain for board in boards)),
        runs=sum(board.runs for board in boards),
    )


def _for_page(board: Board, page: Path) -> Table:
    """Return the table with figures first, since a phone shows a column or two; sorting shows a row's place."""
    table, said = board_table(board, page).without(("#",)).without_same(("model", "date"))
    about = [place for place, head in enumerate(table.heads) if place and head.is_word]
    table = table.only([place for place in range(len(table.heads)) if place not in about] + about)
    known = [title(board), *(f"{name} {text}" for name, text in said.items())]
    return replace(table, caption=f"{', '.join(known)}; shares in percent")


def chart(board: Board) -> Chart | None:
    """Draw the rows of a board: the gain on the first harmful task against the highest false refusal."""
    kinds = {
        kind: [column for column in board.columns if column.kind == kind and column.decides] for kind in KINDS
    }
    if not board.gains:
        return None
    harm, sized = board.gains[0], next(iter(kinds["capability"]), None)
    has_room = sum(row.style != "random" for row in board.rows) <= _MOST_NAMES
    models, points = {row.model for row in board.rows}, []
    counts = Counter((row.variant, row.model) for row in board.rows)
    for place, row in enumerate(board.rows):
        figures = dict(zip(board.columns, row.figures, strict=True))
        gain, costs = figures[harm], [figure for column in kinds["benign"] if (figure := figures[column])]
        if gain is None or not costs:
            continue
        worst = max(costs, key=lambda figure: figure.value)
        size = None if sized is None else figures[sized]
        names = (
            row.variant,
            row.model if len(models) > 1 else "",
            row.settings if counts[row.variant, row.model] > 1 else "",
        )
        points.append(
            Point(
                ", ".join(name for name in names if name),
                row.style,
                (gain.value, gain.low, gain.high),
                (worst.value, worst.low, worst.high),
                None if size is None else size.value,
                has_label=has_room or (row.style == "main" and place < _MOST_NAMES),
                has_bars=has_room,
            )
        )
    return trade_off(points, harm, sized)


# A chart of more rows names the first ones alone.
_MOST_NAMES = 12
