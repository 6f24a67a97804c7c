"""The leaderboard of one run as a table; several random draws are one row, with their median and range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from harness.report.columns import Cell, Column
from harness.report.leaderboard import Leaderboard, Row
from harness.report.table import Head, Item, Table, Tone
from harness.report.words import span

_IN_PERCENT = "shares in percent, with 95% intervals"
_TONES: dict[bool | None, Tone] = {True: "good", False: "bad", None: ""}


def whole_table(board: Leaderboard) -> Table:
    """Return the leaderboard with a row per variant."""
    return _table(board, board.rows)


def board_table(board: Leaderboard) -> Table:
    """Return the leaderboard, with one row for two or more random draws."""
    draws = [row for row in board.rows if row.is_draw and row.skipped is None]
    if len(draws) < 2:
        return whole_table(board)
    kept = [row for row in board.rows if row not in draws]
    table = _table(board, kept)
    name = Item(f"{len(draws)} random draws", "median, lowest–highest", tone="quiet")
    figures = [
        _of_draws([row.cells[place] for row in draws], column) for place, column in enumerate(board.columns)
    ]
    return Table(table.caption, table.heads, (*table.rows, (name, *figures)))


def draws_table(board: Leaderboard) -> Table | None:
    """Return a row per random draw; None where there are fewer than two."""
    draws = [row for row in board.rows if row.is_draw and row.skipped is None]
    return _table(board, draws, f"Each random draw of experts; {_IN_PERCENT}") if len(draws) > 1 else None


def _table(board: Leaderboard, rows: Sequence[Row], caption: str = _IN_PERCENT.capitalize()) -> Table:
    ns = [_n([row.cells[place] for row in rows if row.cells]) for place in range(len(board.columns))]
    heads = (
        Head("variant", role="key", is_word=True, is_name=True),
        *(
            Head(column.task, column.measure, f"n = {n:,}" if n else "")
            for column, n in zip(board.columns, ns, strict=True)
        ),
    )
    return Table(
        caption,
        heads,
        tuple(_row(row, board, ns) for row in rows),
    )


def _n(cells: Sequence[Cell]) -> int | None:
    """Return the number of samples that most figures of a column count; others have their own beside them."""
    counts = Counter(cell.n for cell in cells if cell.value is not None)
    return counts.most_common(1)[0][0] if counts else None


def _row(row: Row, board: Leaderboard, ns: Sequence[int | None]) -> tuple[Item, ...]:
    name = Item(row.variant, sign=row.sign, tone="strong" if row.star else "")
    if row.skipped is not None:
        return (name, *(Item("skipped", tone="quiet") for _ in board.columns))
    columns = zip(row.cells, board.columns, ns, strict=True)
    return (name, *(_figure(cell, column, n) for cell, column, n in columns))


def _figure(cell: Cell, column: Column, n: int | None) -> Item:
    if cell.value is None:
        return Item("no value", tone="quiet")
    ends = span(cell.low, cell.high, column.show)
    count = "" if n == cell.n else f"n = {cell.n:,}"
    under = ", ".join(part for part in (ends, count) if part)
    return Item(column.show(cell.value), under, cell.mark, tone=_TONES[cell.is_better], value=cell.value)


def _of_draws(cells: Sequence[Cell], column: Column) -> Item:
    values = sorted(cell.value for cell in cells if cell.value is not None)
    if not values:
        return Item("not measured", tone="quiet")
    middle = median(values)
    some = f", {len(values)} draws" if len(values) < len(cells) else ""
    return Item(column.show(middle), f"{span(values[0], values[-1], column.show)}{some}", value=middle)
