"""Writes the reference pages below docs/reference/ from the code: commands, settings, summary schema, tasks, Python.

    python -m tools.reference_docs

`tests/test_docs.py` fails where a page and the code differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tools import command_docs, python_docs, summary_docs, task_docs

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"

PAGES: dict[str, Callable[[], str]] = {
    "commands.md": command_docs.commands_page,
    "settings.md": command_docs.settings_page,
    "summary.md": summary_docs.page,
    "tasks.md": task_docs.page,
    "python.md": python_docs.page,
}


if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
