"""Tables in the terminal: nothing is cropped, what is too wide goes on in blocks that repeat the key columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from harness.report.table import Head, Item, Table, Tone
from harness.report.words import visible

_GAP = 2
STYLES: dict[Tone, str] = {"good": "bold green", "bad": "bold red", "strong": "bold", "quiet": "dim", "": ""}
# A name or a heading is folded to this many characters before figures have to go into another block.
_FOLDED = 22
_HEADING = 18
_LEAST = 8


@dataclass(frozen=True, slots=True)
class _Column:
    """A column as lines of characters: heading lines, and per row its lines with their styles."""

    head: Head
    heading: list[tuple[str, str]]
    cells: list[list[tuple[str, str]]]

    @property
    def width(self) -> int:
        lines = [*self.heading, *(line for cell in self.cells for line in cell)]
        return max((cell_len(text) for text, _ in lines), default=0)


def lines_of(table: Table, width: int) -> Iterator[Text]:
    """Yield the table's lines, none wider than `width`, block after block with a blank line between them."""
    keys = [place for place, head in enumerate(table.heads) if head.role == "key"]
    places = [place for place, head in enumerate(table.heads) if head.role != "key"]
    plain = [place for place in places if table.heads[place].role == "main"]
    for wanted in (places, plain):
        for stacked in (False, True):
            block = [_column(table, place, stacked, width) for place in (*keys, *wanted)]
            if _width(block) <= width:
                yield from _block(block, table)
                return
    folded = min(_FOLDED, max(_LEAST, width // 3))
    left = [_column(table, place, True, folded) for place in keys]
    rest = [_column(table, place, True, width - _width(left) - _GAP) for place in plain]
    while rest:
        n = 1
        while n < len(rest) and _width([*left, *rest[: n + 1]]) <= width:
            n += 1
        yield from _block([*left, *rest[:n]], table)
        rest = rest[n:]
        if rest:
            yield Text("")


def _column(table: Table, place: int, stacked: bool, most: int) -> _Column:
    head = table.heads[place]
    items = [row[place] for row in table.rows]
    one_line = not stacked and head.role != "key"
    # Where some cells have a star or a sign, the others leave its place free: figures stand below one another.
    blank, sign, mark = " ", any(item.sign for item in items), any(item.mark for item in items)
    texts = [
        (f"{item.sign or blank} " if sign else "")
        + visible(item.text)
        + (f" {item.mark or blank}" if mark else "")
        for item in items
    ]
    values = max(map(cell_len, texts), default=0)
    unders = max((cell_len(visible(item.under)) for item in items), default=0)
    cells = [
        _one_line(item, text, values, unders)
        if one_line and unders and not head.is_word
        else _lines(item, text, most, bool(sign))
        for item, text in zip(items, texts, strict=True)
    ]
    widest = max((cell_len(text) for cell in cells for text, _ in cell), default=0)
    room = min(most, max(widest, _HEADING))
    heading = [(text, "bold") for text in folded(visible(head.name), room)]
    for line in (head.unit, head.count):
        heading += [(text, "dim") for text in folded(visible(line), room)] if line else []
    return _Column(head, heading, cells)


def _one_line(item: Item, text: str, values: int, unders: int) -> list[tuple[str, str]]:
    return [(f"{text.rjust(values)}  {visible(item.under).rjust(unders)}", STYLES[item.tone])]


def _lines(item: Item, text: str, most: int, is_signed: bool) -> list[tuple[str, str]]:
    indent = "  " if is_signed else ""
    lines = [(line, STYLES[item.tone]) for line in folded(text, most, indent)]
    under = folded(visible(item.under), most - len(indent)) if item.under else []
    return [*lines, *((f"{indent}{line}", "dim") for line in under)]


def folded(text: str, most: int, indent: str = "") -> list[str]:
    """Return text in lines of at most `most` cells: at spaces, else behind _, - and /, else anywhere; nothing is lost.

    Args:
        text: what to fold.
        most: the width of a line.
        indent: what each line but the first begins with; `text` has its own.
    """
    lines = [""]
    for word in _words(text, most - len(indent)):
        while word:
            room = most - cell_len(lines[-1])
            if cell_len(word.rstrip()) <= room:
                lines[-1] += word
                break
            if not lines[-1].strip():
                taken = _prefix(word, room)
                lines[-1] += taken
                word = word[len(taken) :]
            lines.append(indent)
    return [line.rstrip() for line in lines if line.strip()] or [""]


def _words(text: str, most: int) -> Iterator[str]:
    """Yield the words with the space behind each; one that is wider than a line in pieces."""
    for word in _split(text, " "):
        yield from (word,) if cell_len(word.rstrip()) <= most else _split(word, "_-/")


def _split(text: str, behind: str) -> Iterator[str]:
    start = 0
    for place, character in enumerate(text):
        if character in behind and place + 1 < len(text):
            yield text[start : place + 1]
            start = place + 1
    yield text[start:]


def _prefix(text: str, most: int) -> str:
    taken = ""
    for character in text:
        if taken and cell_len(taken + character) > most:
            break
        taken += character
    return taken


def _width(columns: Sequence[_Column]) -> int:
    return sum(column.width for column in columns) + _GAP * max(len(columns) - 1, 0)


def _block(columns: Sequence[_Column], table: Table) -> Iterator[Text]:
    widths = [column.width for column in columns]
    high = max(len(column.heading) for column in columns)
    for line in range(high):
        yield _line(
            [_at(column.heading, line - high + len(column.heading)) for column in columns], columns, widths
        )
    yield Text("─" * _width(columns), "dim")
    for row in range(len(table.rows)):
        cells = [column.cells[row] for column in columns]
        for line in range(max(len(cell) for cell in cells)):
            yield _line([_at(cell, line) for cell in cells], columns, widths)


def _at(lines: Sequence[tuple[str, str]], place: int) -> tuple[str, str]:
    return lines[place] if 0 <= place < len(lines) else ("", "")


def _line(parts: Sequence[tuple[str, str]], columns: Sequence[_Column], widths: Sequence[int]) -> Text:
    line = Text()
    for place, ((text, style), column, width) in enumerate(zip(parts, columns, widths, strict=True)):
        space = " " * (width - cell_len(text))
        gap = " " * _GAP if place else ""
        line.append(gap + (text if column.head.is_word else space + text), style)
        if column.head.is_word:
            line.append(space)
    line.rstrip()
    return line
