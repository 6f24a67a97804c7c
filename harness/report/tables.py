"""The leaderboard and the tests as CSV and LaTeX, for papers and spreadsheets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from harness.report import leaderboard
from harness.report.board_table import whole_table
from harness.report.leaderboard import Leaderboard
from harness.report.stars import SIGNS
from harness.report.table import Table
from harness.report.words import visible
from harness.runs.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def tables(summary: Summary) -> dict[str, str]:
    """Return the content of each file, by name."""
    board = leaderboard.build(summary)
    return {
        "leaderboard.csv": csv(_long(board)),
        "comparisons.csv": csv(row.model_dump() for row in summary.comparisons),
        "leaderboard.tex": as_latex(whole_table(board)),
    }


def csv(rows: Iterable[Row]) -> str:
    """Return rows as CSV whose texts no spreadsheet takes for a formula."""
    import pandas as pd

    shown = _visible(pd.DataFrame(list(rows)))
    return shown.map(_no_formula).to_csv(index=False)


def _no_formula(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _long(board: Leaderboard) -> Iterator[Row]:
    for row in board.rows:
        for column, cell in zip(board.columns, row.cells, strict=bool(row.cells)):
            yield {
                "variant": row.variant,
                "task": column.task,
                "kind": column.kind,
                "metric": column.name,
                "value": cell.value,
                "low": cell.low,
                "high": cell.high,
                "n": cell.n,
                "against_base": cell.effect,
                "star": row.star or "",
            }


_SIGNS = {"▲": "$^{+}$", "▼": "$^{-}$", SIGNS["full"]: r"$^{\star}$", SIGNS["hollow"]: r"$^{\circ}$"}
_NOTES = (
    "$^{+}$, $^{-}$: significantly above, below base (paired test, adjusted $p < 0.05$).",
    r"$^{\star}$: best, every cost shown to be within its margin; $^{\circ}$: a cost is not decided.",
    "Random draws of experts have no marks.",
)


def as_latex(table: Table) -> str:
    r"""Return a table's figures without their intervals, for a paper that loads booktabs; notes say what marks mean."""
    import pandas as pd

    rows = [[f"{item.text}{item.mark}{item.sign}" for item in row] for row in table.rows]
    heads = [f"{head.name} ({head.unit.rstrip('↑↓ ')})" if head.unit else head.name for head in table.heads]
    shown = _visible(pd.DataFrame(rows, columns=heads))
    columns = "".join("l" if head.is_word else "r" for head in table.heads)
    text = shown.to_latex(index=False, escape=True, column_format=columns)
    for sign, command in _SIGNS.items():
        text = text.replace(sign, command)
    notes = "".join(
        rf"\multicolumn{{{len(heads)}}}{{l}}{{\footnotesize {note}}} \\" + "\n" for note in _NOTES
    )
    return text.replace("\\end{tabular}", f"{notes}\\end{{tabular}}")


def _visible(table: pd.DataFrame) -> pd.DataFrame:
    shown = table.map(lambda cell: visible(cell) if isinstance(cell, str) else cell)
    return shown.rename(columns=lambda name: visible(str(name)))
