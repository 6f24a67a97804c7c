"""The run folder: where a run keeps what it made, which stages are finished, and what every file hashes to.

A stage is finished when run.json holds its fingerprint and its files are those that it wrote, by their hash. Files are
renamed into place before the stage is recorded, so a run that was killed at any moment continues from what is whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.base.files import read_json, sha256, write_json

RUN_FILE = "run.json"
MANIFEST = "manifest.json"


class RunFolder:
    """A run's folder.

    Args:
        path: a new or empty folder, or one that an earlier run left.

    Raises:
        BadInputError: the folder holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state: dict[str, Any] = {"stages": {}}
        self._hashes: dict[str, tuple[int, int, str]] = {}
        if (path / RUN_FILE).is_file():
            self.state = _read_state(path / RUN_FILE)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise BadInputError(
                f"output {path} holds something that is not a run: expected a new or empty folder"
            )

    def describe(self, facts: dict[str, Any]) -> None:
        """Write run.json with what is known of the run; stage states are kept."""
        self.state = {**facts, "stages": self.state["stages"]}
        self._save()

    def is_done(self, stage: str, key: str) -> bool:
        """Say whether a stage was finished with this fingerprint and its files are still those that it wrote."""
        return self.was_done(stage, key) and self.damage(stage) is None

    def was_done(self, stage: str, key: str) -> bool:
        """Say whether a stage was finished with this fingerprint, whatever has become of its files.

        A record without hashes is of an earlier version: what it wrote cannot be told from what was changed since.
        """
        record = self.state["stages"].get(stage)
        return bool(record and record["fingerprint"] == key and "files" in record)

    def damage(self, stage: str) -> str | None:
        """Return the first file of a finished stage that is not what it wrote, and how it differs, or None."""
        for name, written in self.state["stages"][stage]["files"].items():
            if not (self.path / name).is_file():
                return f"{name} is missing"
            if self._hashed(name) != written:
                return f"{name} is not what the run wrote"
        return None

    @contextmanager
    def stage(self, stage: str, key: str, writes: Iterable[Path] = ()) -> Iterator[None]:
        """Time a stage and record it as finished when the block ends without an error.

        Args:
            stage: its name.
            key: its fingerprint.
            writes: the files that it writes, and folders of such files; looked at when the block ends.
        """
        earlier = self.state["stages"].get(stage, {})
        # Seconds add up over interruptions of the same work.
        spent = earlier.get("seconds", 0.0) if earlier.get("fingerprint") == key else 0.0
        started = time.perf_counter()
        record = {"fingerprint": key, "state": "started", "seconds": spent}
        try:
            yield
            record["files"] = {name: self._hashed(name) for path in writes for name in self._files(path)}
            record["state"] = "done"
        finally:
            record["seconds"] = round(spent + time.perf_counter() - started, 3)
            if record["state"] != "done":
                record["fingerprint"] = f"unfinished {key}"
            self.state["stages"][stage] = record
            self._save()
        self.write_manifest()

    def seconds(self, prefix: str = "") -> dict[str, float]:
        """Return the seconds of the finished stages whose name starts with `prefix`, by the rest of the name."""
        stages: dict[str, dict[str, Any]] = self.state["stages"]
        return {
            name.removeprefix(prefix): row["seconds"]
            for name, row in stages.items()
            if name.startswith(prefix)
        }

    def variant(self, name: str) -> Path:
        """Return the folder of a variant."""
        return self.path / "variants" / name

    def responses(self, variant: str, task: str) -> Path:
        """Return the file of a variant's answers to a task."""
        return self.variant(variant) / "responses" / f"{task}.jsonl"

    def verdicts(self, variant: str, task: str, judge: str) -> Path:
        """Return the file of a judge's verdicts on them."""
        return self.variant(variant) / "verdicts" / f"{task}.{judge}.jsonl"

    def routing(self, task: str) -> Path:
        """Return the file of a task's routing counts."""
        return self.path / "routing" / f"{task}.safetensors"

    def write_manifest(self) -> None:
        """Write size and sha256 of every whole file; unchanged files are not read again."""
        names = [name for name in self._files(self.path) if name != MANIFEST and not is_unfinished(name)]
        write_json(self.path / MANIFEST, {"files": {name: self._hashed(name) for name in names}})

    def hash_of(self, path: Path) -> str:
        """Return the sha256 of a file of the run."""
        return str(self._hashed(path.relative_to(self.path).as_posix())["sha256"])

    def _files(self, path: Path) -> list[str]:
        """Return the names in the run folder of a file, or of all files in a folder."""
        found = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        return [file.relative_to(self.path).as_posix() for file in found]

    def _hashed(self, name: str) -> dict[str, Any]:
        """Return a file's size and sha256; one with the size and time of the last look is not read again."""
        path = self.path / name
        stat = path.stat()
        known = self._hashes.get(name)
        if known is None or known[:2] != (stat.st_size, stat.st_mtime_ns):
            known = (stat.st_size, stat.st_mtime_ns, sha256(path))
            self._hashes[name] = known
        return {"size": known[0], "sha256": known[2]}

    def _save(self) -> None:
        write_json(self.path / RUN_FILE, self.state)


def is_unfinished(name: str) -> bool:
    """Say whether a file of a run folder, by its name there, is part of work that is not finished."""
    return any(part.startswith(".") or part.endswith(".partial") for part in name.split("/"))


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = read_json(path)
    except ValueError as error:
        raise BadInputError(f"{path} is not JSON: {error}") from error
    if not isinstance(state, dict) or not isinstance(state.get("stages"), dict):
        raise BadInputError(f"{path} is not the run.json of a run: it has no stages")
    return state
