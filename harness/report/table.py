"""A table as one value; each format renders it: HTML (reports/sections/table.html.j2), Markdown, terminal and LaTeX."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Tone = Literal["", "good", "bad", "strong", "quiet"]
Role = Literal["key", "main", "detail"]

# Headings over names, which Markdown shows as code and nothing cuts off.
_NAMES = {"variant", "against", "task", "metric", "judge", "model", "run"}
_WORDS = {
    "test",
    "frozen proof",
    "over",
    "settings",
    "why",
    "prompt category",
    "tag",
    "stage",
    "comparison",
    "worst case",
}


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a column.

    Attributes:
        name: its first line.
        unit: its second line: the figure with its unit and the direction that is better.
        count: its third line: n, where all or most cells have the same.
        role: a `key` says what a row is, and is repeated where a narrow table goes on below; a `detail` may be
            left out there.
        is_word: whether cells are words, which go to the left, rather than figures.
        is_name: whether they are names, which Markdown shows as code.
    """

    name: str
    unit: str = ""
    count: str = ""
    role: Role = "main"
    is_word: bool = False
    is_name: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One cell.

    Attributes:
        text: what it says.
        under: a second line in smaller type, such as an interval.
        mark: a sign beside the text.
        sign: a sign before it, such as a star.
        tone: for the better, for the worse, in bold, or in grey.
        value: to sort by; None where the text is.
        links: parts of the text with where each leads, which HTML shows in place of the text.
    """

    text: str
    under: str = ""
    mark: str = ""
    sign: str = ""
    tone: Tone = ""
    value: float | None = None
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table: what it shows, its columns and its rows, whose cells go with the columns."""

    caption: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Item, ...], ...]

    def only(self, places: Sequence[int]) -> Table:
        """Return some of the columns."""
        return replace(
            self,
            heads=tuple(self.heads[place] for place in places),
            rows=tuple(tuple(row[place] for place in places) for row in self.rows),
        )

    def without_empty(self) -> Table:
        """Return the columns that hold something."""
        return self.only(
            [place for place in range(len(self.heads)) if any(row[place].text for row in self.rows)]
        )

    def without_same(self, names: Sequence[str]) -> tuple[Table, dict[str, str]]:
        """Return the table without those of these columns that say the same in all rows, and what each of them says."""
        same = {
            head.name: texts.pop()
            for place, head in enumerate(self.heads)
            if head.name in names and len(texts := {row[place].text for row in self.rows}) == 1
        }
        return self.without(tuple(same)), same

    def without(self, names: Sequence[str]) -> Table:
        """Return the table without the columns of these names."""
        return self.only([place for place, head in enumerate(self.heads) if head.name not in names])

    def first(self, n: int) -> Table:
        """Return the first rows."""
        return replace(self, rows=self.rows[:n])

    def after(self, n: int) -> Table:
        """Return the rows after the first ones."""
        return replace(self, rows=self.rows[n:])


def table_of(
    rows: Sequence[Mapping[str, str]], caption: str, keys: int = 1, words: Collection[str] = _WORDS | _NAMES
) -> Table:
    """Return a table of texts by their headings; the first `keys` columns say what a row is.

    Args:
        rows: the texts of each row.
        caption: what the table shows.
        keys: how many columns say what a row is.
        words: headings over words, which go to the left; below others are figures.
    """
    names = list(rows[0]) if rows else []
    heads = (
        Head(
            name,
            role="key" if place < keys else "main",
            is_word=place < keys or name in words,
            is_name=place < keys and name in _NAMES,
        )
        for place, name in enumerate(names)
    )
    return Table(caption, tuple(heads), tuple(tuple(Item(text) for text in row.values()) for row in rows))
