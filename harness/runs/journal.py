"""Work that is done batch by batch, so that a killed run resumes with the missing batches.

Each finished batch is a whole file beside the target, in a folder that carries the work's fingerprint; if the
fingerprint has changed, the folder is emptied. A batch's first line has the hashes of its rows and of its other files:
one that differs is done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from harness.base.files import sha256, write_text
from harness.base.progress import say


class BatchJournal:
    """The finished batches of one piece of work.

    Args:
        target: the file that the work will become.
        key: the work's fingerprint.
    """

    def __init__(self, target: Path, key: str) -> None:
        self.folder = target.with_name(target.name + ".partial")
        marker = self.folder / "fingerprint"
        if not marker.is_file() or marker.read_bytes() != key.encode():
            shutil.rmtree(self.folder, ignore_errors=True)
            write_text(marker, key)

    def rows(self, batch: int) -> list[dict[str, Any]] | None:
        """Return the rows of a finished batch; None where it is not finished or its files have changed since."""
        path = self.path(batch, ".jsonl")
        if not path.is_file():
            return None
        head, _, body = path.read_bytes().partition(b"\n")
        if head != self._head(batch, body):
            say(f"{path}: this batch is not what the run wrote: making it again")
            path.unlink()
            return None
        return [json.loads(line) for line in body.split(b"\n") if line]

    def path(self, batch: int, suffix: str) -> Path:
        """Return where a batch keeps a file; what else it has is written before its rows."""
        return self.folder / f"{batch:05d}{suffix}"

    def finish(self, batch: int, rows: list[dict[str, Any]]) -> None:
        """Record a batch as finished."""
        body = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        head = self._head(batch, body.encode()).decode()
        write_text(self.path(batch, ".jsonl"), f"{head}\n{body}")

    def remove(self) -> None:
        """Forget the batches, once the target is written."""
        shutil.rmtree(self.folder)

    def _head(self, batch: int, body: bytes) -> bytes:
        """Return the first line of a batch's file."""
        rows = self.path(batch, ".jsonl").name
        others = sorted(path for path in self.folder.glob(f"{batch:05d}.*") if path.name != rows)
        hashes = {"rows": hashlib.sha256(body).hexdigest(), **{path.name: sha256(path) for path in others}}
        return json.dumps(hashes).encode()
