"""Lists in the terminal: the names in the first column are whole, as they have to be typed; what follows may wrap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.cells import cell_len
from rich.console import Console

from harness.report.terminal_table import folded
from harness.report.words import visible

_GAP = "  "
# A last column narrower than this reads badly: what follows a name goes below it.
_LEAST = 24


def width_of_terminal() -> int | None:
    """Return the columns of the terminal; None where the output goes into a file or another program."""
    console = Console()
    return console.width if console.is_terminal else None


def listing(rows: Sequence[Mapping[str, object]], width: int | None) -> Iterator[str]:
    """Yield the lines of a list, its head first.

    Args:
        rows: texts by their headings, the same in all rows.
        width: of a line; None keeps each row on one line, however long, for programs that read lines.
    """
    table = [list(rows[0]), *([visible(str(value)) for value in row.values()] for row in rows)]
    widths = [max(cell_len(row[place]) for row in table) for place in range(len(table[0]))]
    before = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    if width is None or before + widths[-1] <= width:
        for row in table:
            yield _joined(row, widths).rstrip()
    elif width - before >= _LEAST:
        for row in table:
            last = folded(row[-1], width - before)
            yield _joined([*row[:-1], last[0]], widths).rstrip()
            yield from (" " * before + line for line in last[1:])
    else:
        for name, *rest in table:
            yield name
            yield from (f"{_GAP}{line}" for line in folded(" · ".join(filter(None, rest)), width - len(_GAP)))


def _joined(row: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
