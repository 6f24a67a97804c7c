"""Markdown for the pages that are generated from code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; bars and line ends within cells are written so that they stay within them."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def generated(title: str, introduction: str, *parts: str) -> str:
    """Return a page that says what makes it."""
    note = "<!-- Made by `python -m tools.reference_docs`; change the code's own words instead. -->"
    return "\n\n".join([f"# {title}", note, introduction, *parts]) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")
