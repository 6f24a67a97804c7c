"""Puts the output of the demo's main job into the tutorial, between its markers.

    harness run --intervention unsafe_experts --output runs/first
    python -m tools.tutorial_docs runs/first

`tests/end_to_end/test_tutorial.py` does that run, and fails where its output is not the tutorial's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
BEGIN, END = "<!-- demo-output -->\n", "<!-- /demo-output -->"


def shown(run: Path) -> str:
    """Return what a run prints at its end on a terminal of 80 columns, up to the findings below the cards."""
    command = [sys.executable, "-m", "harness", "report", str(run)]
    environment = os.environ | {"COLUMNS": "80"}
    printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    finding, bullet, _ = printed.partition("\n• ")
    if not bullet:
        raise ValueError(f"{run}: no findings below the cards")
    return "\n".join(line.rstrip() for line in finding.splitlines()).strip("\n")


def updated(page: str, run: Path) -> str:
    """Return the tutorial with the output of this run."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}```\n{shown(run)}\n```\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), Path(sys.argv[1])), encoding="utf-8")
