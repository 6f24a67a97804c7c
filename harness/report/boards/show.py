"""Leaderboards for the terminal, Markdown, CSV, JSON and as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.report.boards.boards import Board, BoardRow, Figure
from harness.report.boards.entries import LeftOut
from harness.report.columns import Column
from harness.report.leaderboard import rules
from harness.report.markdown import code, escape, grid
from harness.report.page import render_page
from harness.report.tables import csv
from harness.report.words import interval, visible


def cell(figure: Figure | None, column: Column) -> str:
    """Return a figure with its spread or interval."""
    if figure is None:
        return "no value"
    spread = "" if figure.spread is None else f" ± {column.show(figure.spread)}"
    ends = interval(figure.low, figure.high, column.show)
    return f"{column.show(figure.value)}{spread}{f' ({ends})' if ends else ''}{mark(figure)}"


def mark(figure: Figure) -> str:
    """Return the signs of significant differences from base; over several seeds with their number."""
    signs = [
        f"{sign}{n if figure.n > 1 else ''}" for sign, n in (("▲", figure.above), ("▼", figure.below)) if n
    ]
    return f" {' '.join(signs)}" if signs else ""


def title(board: Board) -> str:
    """Return how many runs a table holds, and why they are not in the first one."""
    runs = f"{board.runs} run{'' if board.runs == 1 else 's'}"
    return runs if board.apart is None else f"{runs}, not comparable with the first table: {board.apart}"


def print_boards(
    boards: Sequence[Board], left_out: Sequence[LeftOut], console: Console | None = None
) -> None:
    """Print every table."""
    console = console or Console(highlight=False)
    for board in boards:
        whole = _table(board, board.columns, title(board))
        unbounded = console.options.update(max_width=_WIDEST)
        if Measurement.get(console, unbounded, whole).minimum <= console.width:
            console.print(whole)
            continue
        # On a narrow terminal, harmful tasks, benign ones and capability below one another; further metrics apart.
        parts = dict.fromkeys((column.kind, column.decides) for column in board.columns)
        for place, part in enumerate(parts):
            columns = [column for column in board.columns if (column.kind, column.decides) == part]
            console.print(_table(board, columns, title(board) if place == 0 else ""))
    for out in left_out:
        console.print(Text(f"left out: {visible(out.reason)}", "yellow"))
    console.print(Text(rules()["boards"], "dim"))


def _table(board: Board, columns: Sequence[Column], heading: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(visible(heading)), title_justify="left")
    names = _headings(board)
    words = len(names) - len(board.columns)
    kept = [*range(words), *(words + board.columns.index(column) for column in columns)]
    for at in kept:
        shown.add_column(
            Text(visible(names[at])),
            justify="left" if at < words else "right",
            overflow="fold",
            min_width=_NARROWEST.get(names[at]) if at < words else _NARROWEST_FIGURE,
        )
    for row in board.rows:
        texts = _texts(row, board)
        shown.add_row(*(Text(visible(texts[at])) for at in kept))
    return shown


def as_markdown(boards: Sequence[Board], left_out: Sequence[LeftOut]) -> str:
    """Return the tables in GitHub's Markdown."""
    parts = ["# Leaderboard", ""]
    for board in boards:
        rows = [[code(row.model), code(row.variant), *_texts(row, board)[2:]] for row in board.rows]
        parts += [f"## {escape(title(board))}", "", grid(_headings(board), rows), ""]
    parts += [f"- left out: {escape(out.reason)}" for out in left_out]
    return "\n".join([*parts, "", escape(rules()["boards"]), ""])


def as_csv(boards: Sequence[Board]) -> str:
    """Return one line for each figure."""
    return csv(
        {
            "table": number,
            **{name: getattr(row, name) for name in ("model", "variant", "settings")},
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
                        **{name: getattr(row, name) for name in ("model", "variant", "settings", "skipped")},
                        "seeds": list(row.seeds),
                        "runs": list(row.runs),
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


def as_html(boards: Sequence[Board], left_out: Sequence[LeftOut]) -> str:
    """Return one page, whose columns can be sorted."""
    return render_page(
        "leaderboards.html.j2",
        ["leaderboards.js"],
        boards=boards,
        left_out=left_out,
        rule=rules()["boards"],
        title=title,
        cell=cell,
        runs=sum(board.runs for board in boards),
    )


# On a narrow terminal figures break more readably than names do.
_NARROWEST = {"variant": 14, "settings": 16}
_NARROWEST_FIGURE = 11
_WIDEST = 10_000


def _headings(board: Board) -> list[str]:
    settings = ["settings"] if any(row.settings for row in board.rows) else []
    figures = (f"{column.task} {column.measure}" for column in board.columns)
    return ["model", "variant", *settings, "seeds", *figures]


def _texts(row: BoardRow, board: Board) -> list[str]:
    settings = [row.settings] if any(each.settings for each in board.rows) else []
    figures = (
        ["skipped"] * len(board.columns)
        if row.skipped is not None
        else [cell(figure, column) for figure, column in zip(row.figures, board.columns, strict=True)]
    )
    return [row.model, row.variant, *settings, " ".join(map(str, row.seeds)), *figures]
