"""Work that is done batch by batch, so that a killed run resumes with the missing batches.

Each finished batch is a whole file beside the target, in a folder that carries the work's fingerprint; if the
fingerprint has changed, the folder is emptied.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.base.files import read_jsonl, write_jsonl, write_text


class BatchJournal:
    """The finished batches of one piece of work.

    Args:
        target: the file that the work will become.
        key: the work's fingerprint.
    """

    def __init__(self, target: Path, key: str) -> None:
        self.folder = target.with_name(target.name + ".partial")
        marker = self.folder / "fingerprint"
        if not marker.is_file() or marker.read_text(encoding="utf-8") != key:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_text(marker, key)

    def rows(self, batch: int) -> list[dict[str, Any]] | None:
        """Return the rows of a finished batch, or None."""
        path = self.path(batch, ".jsonl")
        return read_jsonl(path) if path.is_file() else None

    def path(self, batch: int, suffix: str) -> Path:
        """Return where a batch keeps a file; what else it has is written before its rows."""
        return self.folder / f"{batch:05d}{suffix}"

    def finish(self, batch: int, rows: list[dict[str, Any]]) -> None:
        """Record a batch as finished."""
        write_jsonl(self.path(batch, ".jsonl"), rows)

    def remove(self) -> None:
        """Forget the batches, once the target is written."""
        shutil.rmtree(self.folder)
