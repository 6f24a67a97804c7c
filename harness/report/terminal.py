"""The leaderboard and the conclusion in the terminal, and the same as a picture."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.base.files import write_text
from harness.report import leaderboard
from harness.report.columns import KINDS, Cell, Column
from harness.report.conclusion import conclude
from harness.report.leaderboard import Leaderboard
from harness.report.words import visible
from harness.runs.summary import Summary

Layout = Literal["beside", "below"]
_LAYOUTS: tuple[Layout, ...] = ("beside", "below")
_PICTURE_WIDTH = 100
# rich's own picture loads its font from a content network; a picture in a README must not.
_OUTSIDE_FONT = re.compile(r"@font-face\s*{{.*?}}\s*", re.DOTALL)


def print_report(summary: Summary, console: Console | None = None) -> None:
    """Print one run's leaderboard and conclusion."""
    console = console or Console()
    console.print(_report(summary, console))


def export_svg(summary: Summary, path: Path) -> None:
    """Write the terminal's leaderboard and conclusion as an SVG picture that asks nothing of any server."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.terminal_theme import MONOKAI

    console = Console(
        record=True, width=_PICTURE_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(_report(summary, console, with_rules=False))
    picture = console.export_svg(
        title=visible(f"harness run --intervention {summary.intervention} --model {summary.model.name}"),
        theme=MONOKAI,
        code_format=_OUTSIDE_FONT.sub("", CONSOLE_SVG_FORMAT),
        unique_id="leaderboard",
    )
    write_text(path, picture)


def _report(summary: Summary, console: Console, *, with_rules: bool = True) -> Group:
    board, rules, model = leaderboard.build(summary), leaderboard.rules(), summary.model
    heading = Text.assemble(
        (visible(model.name), "bold"),
        f"  {model.shape} · judge {visible(summary.judge)}",
    )
    parts: list[RenderableType] = [heading, *_tables(board, console)]
    parts.append(Text("Conclusion", style="bold"))
    parts += [_bullet(sentence) for sentence in conclude(summary)]
    if with_rules:
        parts += [Text(rule, style="dim") for rule in ("", rules["marks"], rules["best"])]
    return Group(*parts)


def _bullet(sentence: str) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column()
    grid.add_row("•", Text(sentence))
    return grid


def _tables(board: Leaderboard, console: Console) -> Iterator[Table]:
    """Yield one table where all columns fit, else one per kind, and more where a kind is too wide."""
    whole = _fitting(board, console)
    if whole is not None or not board.columns:
        yield whole or _table(board, "beside")
        return
    for kind in KINDS:
        left = [index for index, column in enumerate(board.columns) if column.kind == kind]
        while left:
            size = 1
            while size < len(left) and _fitting(_only(board, left[: size + 1]), console):
                size += 1
            part = _only(board, left[:size])
            yield _fitting(part, console) or _table(part, "below")
            left = left[size:]


def _fitting(board: Leaderboard, console: Console) -> Table | None:
    """Return the table in the first layout that is narrow enough."""
    tables = (_table(board, layout) for layout in _LAYOUTS)
    return next((table for table in tables if _fits(table, console)), None)


def _fits(table: Table, console: Console) -> bool:
    unbounded = console.options.update(max_width=10_000)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def _only(board: Leaderboard, indices: Sequence[int]) -> Leaderboard:
    return Leaderboard(
        tuple(board.columns[index] for index in indices),
        tuple(
            replace(row, cells=tuple(row.cells[index] for index in indices) if row.cells else ())
            for row in board.rows
        ),
    )


def _table(board: Leaderboard, layout: Layout) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=True, pad_edge=False)
    table.add_column("variant", vertical="top", overflow="fold")
    for column in board.columns:
        between = " " if layout == "beside" else "\n"
        measure = f"{visible(column.name)}{between}{column.unit}"
        heading = Text.assemble((visible(column.task), "bold"), "\n", (measure, "dim"))
        table.add_column(heading, vertical="top", overflow="fold")
    widths = [_widths(board, index) for index in range(len(board.columns))]
    for row in board.rows:
        name = Text(f"{row.sign or ' '} {visible(row.variant)}", "bold" if row.star else "")
        if row.skipped is not None:
            table.add_row(name, *(Text("skipped", "dim italic") for _ in board.columns[:1]))
            continue
        cells = zip(row.cells, board.columns, widths, strict=True)
        table.add_row(name, *(_figure(cell, column, width, layout) for cell, column, width in cells))
    return table


def _interval(cell: Cell, column: Column) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f"{column.show(cell.low)}-{column.show(cell.high)}"


def _widths(board: Leaderboard, index: int) -> tuple[int, int]:
    column, cells = board.columns[index], [row.cells[index] for row in board.rows if row.cells]
    values = [len(column.show(cell.value)) for cell in cells if cell.value is not None]
    return max(values, default=0), max((len(_interval(cell, column)) for cell in cells), default=0)


def _figure(cell: Cell, column: Column, widths: tuple[int, int], layout: Layout) -> Text:
    if cell.value is None:
        return Text("no value", "dim")
    style = {True: "bold green", False: "bold red", None: "bold"}[cell.is_better]
    value, mark, interval = column.show(cell.value), cell.mark, _interval(cell, column)
    if layout == "below":
        return Text.assemble((f"{value} {mark}", style), "\n", (interval, "dim"))
    return Text.assemble(
        (value.rjust(widths[0]), style), " ", (interval.rjust(widths[1]), "dim"), " ", (mark, style)
    )
