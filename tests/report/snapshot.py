"""What the terminal shows, kept as files that `HARNESS_UPDATE_SNAPSHOTS=1 pytest` writes anew for a diff."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER = Path(__file__).with_name("snapshots")


def check_snapshot(name: str, text: str) -> None:
    """Compare what is shown with what it was."""
    path = _FOLDER / f"{name}.txt"
    if os.environ.get("HARNESS_UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
