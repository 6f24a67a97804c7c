"""report.md, made for pull requests: GitHub's Markdown, tables first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.report.columns import Cell, Column
from harness.report.facts import Row, Test, facts
from harness.report.leaderboard import Leaderboard
from harness.report.page import environment
from harness.report.words import interval, visible
from harness.runs.run import Run
from harness.runs.summary import Summary

# What starts markup anywhere; an underscore does only where it is not inside a word.
_MARKUP = re.compile(r"[\\`*\[\]|#~$&]|<(?! )|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")
# Headings over names, which are shown as code.
_NAMES = {"variant", "against", "task", "metric", "judge"}


class _Ready(str):
    """Text that is Markdown already."""


def render_markdown(path: Path, summary: Summary) -> str:
    """Return the run's report as Markdown.

    Raises:
        BadInputError: a file of the run folder is there and cannot be read.
    """
    # Markdown has its own escape, given by finalize.
    markdown = environment(autoescape=False, finalize=_finalize, keep_trailing_newline=True)
    markdown.filters |= {
        "code": code,
        "fenced": _fenced,
        "table": _table,
        "leaderboard": _leaderboard,
        "comparisons": _comparisons,
    }
    return markdown.get_template("report.md.j2").render(facts(Run(path), summary))


def escape(text: str) -> str:
    """Return text that Markdown and GitHub show as it is, on one line."""
    return _MARKUP.sub(lambda mark: f"\\{mark[0]}", " ".join(visible(text, lines=True).split()))


def code(text: str) -> str:
    """Return text as a code span that may stand in a table."""
    plain = " ".join(visible(text, lines=True).split())
    if "|" in plain:
        # Renderers disagree on whether a backslash before an escaped pipe ends a table's cell.
        return _Ready(f"<code>{'&#124;'.join(escape(part) for part in plain.split('|'))}</code>")
    ticks = "`" * (max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    space = " " if "`" in plain else ""
    return _Ready(f"{ticks}{space}{plain}{space}{ticks}" if plain else "")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; cells are escaped unless they come from `code`."""
    if not rows:
        return _Ready("")
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return _Ready("\n".join(f"| {' | '.join(map(_finalize, line))} |" for line in lines))


def _finalize(value: object) -> str:
    return value if isinstance(value, _Ready) else escape(str(value))


def _fenced(text: str) -> str:
    plain = visible(text)
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    return _Ready(f"{fence}sh\n{plain}\n{fence}")


def _table(rows: Sequence[Row]) -> str:
    """Return rows as a table; names are code, blanks stay blank."""
    cells = [[code(text) if name in _NAMES else text for name, text in row.items()] for row in rows]
    return table(list(rows[0]), cells)


def _comparisons(tests: Sequence[Test]) -> str:
    """Return tests as a table, significant differences in bold."""
    rows = []
    for test in tests:
        row = dict(test.row)
        if test.is_significant:
            row["difference"] = _Ready(f"**{row['difference']}**")
        rows.append(row)
    return _table(rows)


def _leaderboard(board: Leaderboard) -> str:
    headings = [
        "variant",
        *(_Ready(f"{code(column.task)}<br>{escape(column.measure)}") for column in board.columns),
    ]
    rows = []
    for row in board.rows:
        name = _Ready(f"**{row.sign} {code(row.variant)}**" if row.star else code(row.variant))
        if row.skipped is not None:
            rows.append([name, *["skipped"] * len(board.columns)])
        else:
            pairs = zip(row.cells, board.columns, strict=True)
            rows.append([name, *(_figure(cell, column) for cell, column in pairs)])
    return table(headings, rows)


def _figure(cell: Cell, column: Column) -> str:
    if cell.value is None:
        return "no value"
    ends = interval(cell.low, cell.high, column.show)
    return f"{column.show(cell.value)}{f' ({ends})' if ends else ''} {cell.mark}".rstrip()
