"""The leaderboard and the tests as CSV and LaTeX, for papers and spreadsheets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.report import leaderboard
from harness.report.leaderboard import Cell, Column
from harness.report.words import visible
from harness.runs.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def tables(summary: Summary) -> dict[str, str]:
    """Return the content of each file, by name."""
    import pandas as pd

    long = pd.DataFrame(_rows(summary))
    tests = pd.DataFrame([row.model_dump() for row in summary.comparisons])
    return {
        "leaderboard.csv": _csv(long),
        "comparisons.csv": _csv(tests),
        "leaderboard.tex": _latex(_wide(summary), "lr"),
    }


def _rows(summary: Summary) -> list[dict[str, object]]:
    board = leaderboard.build(summary)
    return [
        {
            "variant": row.variant,
            "task": column.task,
            "kind": column.kind,
            "metric": column.name,
            "value": cell.value,
            "low": cell.low,
            "high": cell.high,
            "n": cell.n,
            "against_base": cell.effect,
            "best": row.is_best,
        }
        for row in board.rows
        for column, cell in zip(board.columns, row.cells, strict=bool(row.cells))
    ]


def _wide(summary: Summary) -> pd.DataFrame:
    import pandas as pd

    board = leaderboard.build(summary)
    rows = [
        {"variant": row.variant}
        | {
            f"{column.task} ({column.name})": _figure(cell, column)
            for column, cell in zip(board.columns, row.cells, strict=bool(row.cells))
        }
        for row in board.rows
    ]
    return pd.DataFrame(rows).fillna("skipped")


def _figure(cell: Cell, column: Column) -> str:
    if cell.value is None:
        return "no value"
    return f"{column.show(cell.value)}{ {'higher': '+', 'lower': '-'}.get(cell.effect, '') }"


def _csv(table: pd.DataFrame) -> str:
    return _safe(table, lambda text: f"'{text}" if text.startswith(_FORMULA) else text).to_csv(index=False)


def _latex(table: pd.DataFrame, alignment: str) -> str:
    columns = alignment[0] + alignment[1] * (len(table.columns) - 1)
    safe = _safe(table, lambda text: text)
    return (
        "% + and -: significantly above or below base (paired test, adjusted p < 0.05)\n"
        f"{safe.to_latex(index=False, escape=True, column_format=columns)}"
    )


def _safe(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    shown = table.map(lambda cell: change(visible(cell)) if isinstance(cell, str) else cell)
    return shown.rename(columns=lambda name: visible(str(name)))
