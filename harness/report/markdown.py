"""report.md, made for pull requests: GitHub's Markdown, the finding first and the rest folded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from harness.report.cards import Card
from harness.report.facts import facts
from harness.report.finding import Finding
from harness.report.page import environment
from harness.report.table import Head, Item, Table
from harness.report.words import visible
from harness.runs.run import Run
from harness.runs.summary import Summary

# What starts markup anywhere; an underscore does only where it is not inside a word.
_MARKUP = re.compile(r"[\\`*\[\]|#~$&]|<(?! )|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


class _Ready(str):
    """Text that is Markdown already."""


MOST = 60_000
"""Characters that report.md holds at most: a comment on GitHub holds 65,536."""
_SECTION, _SENTENCE, _ROWS = 20_000, 1_500, 40


def render_markdown(path: Path, summary: Summary) -> str:
    """Return the run's report as Markdown: what it found, and the rest folded.

    Raises:
        BadInputError: a file of the run folder is there and cannot be read.
    """
    # Markdown has its own escape, given by finalize.
    markdown = environment(autoescape=False, finalize=_finalize, keep_trailing_newline=True)
    markdown.filters |= {
        "code": code,
        "fenced": _fenced,
        "table": as_markdown,
        "sentence": _sentence,
        "cards": _cards,
    }
    text = markdown.get_template("report.md.j2").render(facts(Run(path), summary))
    finding, *sections = text.split("\n## ")
    return _folded(finding, sections)


def as_markdown(table: Table, most: int | None = _ROWS) -> str:
    """Return a table of at most so many rows; what stands below a figure stands beside it in brackets."""
    headings = [
        _Ready("<br>".join([_head(head), *(escape(line) for line in (head.unit, head.count) if line)]))
        for head in table.heads
    ]
    rows = [
        [_item(item, head) for item, head in zip(row, table.heads, strict=True)] for row in table.rows[:most]
    ]
    words = sum(1 for _ in takewhile(lambda head: head.is_word, table.heads))
    more = 0 if most is None else len(table.rows) - most
    note = f"\n\n{more} more rows are in report.html." if more > 0 else ""
    return _Ready(grid(headings, rows, words) + note)


def _head(head: Head) -> str:
    return code(head.name) if head.count else escape(head.name)


def _item(item: Item, head: Head) -> str:
    text = code(item.text) if head.is_name and item.tone != "quiet" else escape(item.text)
    under = f" ({escape(item.under)})" if item.under else ""
    shown = " ".join(part for part in (item.sign, text, item.mark) if part)
    return _Ready(
        f"**{shown}**{under}" if shown and item.tone in ("good", "bad", "strong") else f"{shown}{under}"
    )


def _cards(found: Finding) -> str:
    """Return the cards as a table of one row each, below a figure that another stands beside a row for that."""
    headings = [
        "question",
        "answer",
        "figure",
        "base",
        found.intervention,
        "change (95% interval)",
        "decided by",
        "random draws",
    ]
    rows = []
    for card in found.cards:
        rows.append(_card(card, card.question, card.answer))
        if card.beside is not None:
            rows.append(_card(card.beside, "beside it", card.beside.moves))
    said = [card.disagreement for card in found.cards if card.disagreement]
    table = grid(headings, rows, len(headings))
    return _Ready("\n\n".join([table, *(f"**{escape(each)}**" for each in said)]))


def _card(card: Card, question: str, answer: str) -> list[str]:
    return [
        question,
        _Ready(f"**{escape(answer)}**"),
        card.figure + (f" ({card.weakest})" if card.weakest else ""),
        card.show(card.base) if card.column else "",
        card.show(card.variant) if card.column else "",
        card.change + (f" ({card.interval})" if card.interval else ""),
        card.margin,
        card.spread,
    ]


def _sentence(text: str) -> str:
    shown = escape(text)
    return _Ready(shown if len(shown) <= _SENTENCE else f"{shown[:_SENTENCE].rstrip(chr(92))} […]")


def _folded(finding: str, sections: Sequence[str]) -> str:
    """Fold each section under its title; leave out what would make the text too long, and say so."""
    text = f"{finding.rstrip()}\n"
    for section in sections:
        title, _, body = section.partition("\n")
        folded = f"\n<details><summary>{title}</summary>\n\n{body.strip()}\n\n</details>\n"
        if len(folded) > _SECTION or len(text) + len(folded) > MOST - 200 * len(sections):
            folded = f"\n{title}: too long for this file, report.html has it.\n"
        text += folded
    return text


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


def grid(headings: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Return a table whose first columns are words, the others figures; cells are escaped unless they are Markdown."""
    if not rows:
        return _Ready("")
    lines = [headings, [*["---"] * words, *["---:"] * (len(headings) - words)], *rows]
    return _Ready("\n".join(f"| {' | '.join(map(_finalize, line))} |" for line in lines))


def _finalize(value: object) -> str:
    return value if isinstance(value, _Ready) else escape(str(value))


def _fenced(text: str) -> str:
    plain = visible(text)
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", plain)), default=0) + 1)
    return _Ready(f"{fence}sh\n{plain}\n{fence}")
