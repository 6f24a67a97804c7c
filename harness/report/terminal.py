"""A run in the terminal: its leaderboard, then what it found; and the same as a picture."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from harness.base.files import write_text
from harness.report import judging, leaderboard
from harness.report.board_table import board_table
from harness.report.cards import Card
from harness.report.finding import Finding, find
from harness.report.terminal_table import folded, lines_of
from harness.report.words import visible
from harness.runs.summary import Summary

_PICTURE_WIDTH = 100
_CARD = 26  # the narrowest card; its frame takes 4 of it
_COLOURS = {"good": "green", "bad": "red", "open": "yellow"}
# rich's own picture loads its font from a content network; a picture in a README must not.
_OUTSIDE_FONT = re.compile(r"@font-face\s*{{.*?}}\s*", re.DOTALL)


def print_report(summary: Summary, console: Console | None = None) -> None:
    """Print one run's leaderboard and what it found."""
    console = console or Console()
    console.print(_report(summary, console.width))


def export_svg(summary: Summary, path: Path) -> None:
    """Write what the terminal shows as an SVG picture that asks nothing of any server."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.terminal_theme import MONOKAI

    console = Console(
        record=True, width=_PICTURE_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(_report(summary, _PICTURE_WIDTH))
    picture = console.export_svg(
        title=visible(f"harness run --intervention {summary.intervention} --model {summary.model.name}"),
        theme=MONOKAI,
        code_format=_OUTSIDE_FONT.sub("", CONSOLE_SVG_FORMAT),
        unique_id="leaderboard",
    )
    write_text(path, picture)


def _report(summary: Summary, width: int) -> Group:
    board, model = leaderboard.build(summary), summary.model
    heading = Text.assemble(
        (visible(model.name), "bold"),
        f"  {model.shape} · {visible(judging.deciding_in_words(summary))}",
    )
    table = lines_of(board_table(board), width)
    signs = leaderboard.rules()["signs"]
    return Group(
        heading, Text(""), *table, Text(""), Text(signs, "dim"), Text(""), *_finding(find(summary), width)
    )


def _finding(found: Finding, width: int) -> Iterator[RenderableType]:
    yield Text(found.headline, "bold")
    if found.cards:
        yield _cards(found, width)
    yield _line("Does choosing experts matter? ", found.claim)
    if found.doubt:
        yield _line("Distrust first: ", found.doubt)
    for sentence in found.bullets:
        yield _bullet(sentence)
    if found.rest:
        yield Text(f"{found.folded}, and how to read the figures: in the report.", "dim")


def _line(label: str, sentence: str) -> Text:
    return Text.assemble((label, "bold"), visible(sentence))


def _bullet(sentence: str) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column()
    grid.add_row("•", Text(sentence))
    return grid


def _cards(found: Finding, width: int) -> RenderableType:
    """Return the cards side by side where all three fit, else below one another."""
    beside = width >= len(found.cards) * _CARD
    each = width // len(found.cards) if beside else width
    contents = [list(_card(card, each - 4)) for card in found.cards]
    height = max(map(len, contents)) + 2 if beside else None
    panels = [
        Panel(
            Text("\n").join(lines),
            border_style="dim",
            width=each,
            height=height,
        )
        for card, lines in zip(found.cards, contents, strict=True)
    ]
    if not beside:
        return Group(*panels)
    grid = Table.grid()
    for _ in panels:
        grid.add_column(width=each)
    grid.add_row(*panels)
    return grid


def _card(card: Card, width: int) -> Iterator[Text]:
    parts = [
        (card.question, "bold"),
        (f"{card.answer}{f': {card.change}' if card.change else ''}", f"bold {_COLOURS[card.tone]}"),
        (f"95%: {card.interval}" if card.interval else "", "dim"),
        (card.figure, ""),
        (f"({card.weakest})" if card.weakest else "", "dim"),
        (f"base {card.show(card.base)} → {card.show(card.variant)}" if card.column else "", ""),
        (card.margin, "dim"),
        (_strip(card, width), ""),
        (card.spread, "dim"),
        (f"beside: {card.beside.summed_up}" if card.beside else "", "dim"),
        (card.disagreement, "bold yellow"),
    ]
    for text, style in parts:
        if text:
            yield from (Text(line, style) for line in folded(visible(text), width))


def _strip(card: Card, width: int) -> str:
    """Return a line of shares from 0 to 100 %: · are draws, ○ is base and ● the variant."""
    if card.column is None or not card.column.is_share or not card.draws:
        return ""
    points = [("·", draw.value) for draw in card.draws]
    points += [(sign, value) for sign, value in (("○", card.base), ("●", card.variant)) if value is not None]
    line = ["─"] * (width - 2)
    for sign, value in points:
        line[round(min(max(value, 0.0), 1.0) * (len(line) - 1))] = sign
    return f"├{''.join(line)}┤"
