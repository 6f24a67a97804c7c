"""Rewrites the tables of docs/command-line.md that the code itself knows: options and settings.

    python -m tools.command_docs

`tests/test_docs.py` fails when the page and the code differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer.main

from harness.cli.main import app
from harness.config import RunConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "command-line.md"


def settings_table() -> str:
    """Return every setting of RunConfig, with its default and what it decides."""
    rows = (
        [
            f"`{each.name}`",
            "" if each.default is None else f"`{each.default}`",
            each.meaning + (f" ({' | '.join(each.choices)})" if each.choices else ""),
            ", ".join(each.decides),
        ]
        for each in RunConfig.declared()
    )
    return _table(["setting", "default", "meaning", "decides"], rows)


def options_table() -> str:
    """Return the options that `run` and its steps take."""
    commands: Any = typer.main.get_command(app)
    options = [option for option in commands.commands["run"].params if option.help]
    return _table(
        ["option", "meaning"],
        ([", ".join(f"`{name}`" for name in option.opts), option.help] for option in options),
    )


def updated(page: str) -> str:
    """Return the page with its generated blocks made anew."""
    for name, table in (("options", options_table()), ("settings", settings_table())):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        blocks = len(pattern.findall(page))
        if blocks != 1:
            raise ValueError(f"the page has {blocks} blocks {begin} ... {end}, expected 1")
        before, after = pattern.split(page)
        page = f"{before}{begin}\n{table}\n{end}{after}"
    return page


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
