"""The run folder: where a run keeps what it made, which stages are finished, and what every file hashes to.

A stage is finished when run.json holds its fingerprint and its files are those that it wrote, by their hash. Files are
renamed into place before the stage is recorded, so a run that was killed at any moment continues from what is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.base.files import is_leftover, json_text, sha256, write_json, write_text
from harness.base.progress import say
from harness.runs.integrity import FileRecord, read_manifest
from harness.runs.layout import MANIFEST, Layout, is_unfinished
from harness.runs.run import Run


class RunFolder:
    """A run's folder.

    Args:
        path: a new or empty folder, or one that an earlier run left.

    Raises:
        BadInputError: the folder holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout = Layout(path)
        self.state: dict[str, Any] = {"stages": {}}
        self._hashes: dict[str, tuple[int, int, str]] = {}
        self.on_stage: Callable[[str, float], None] = lambda stage, seconds: None
        """Called with each stage that is done, and its seconds."""
        # Each stage that ends renews the manifest, with files that are not looked at yet.
        self._left = self._listed()
        if self.layout.run.is_file():
            run = Run(path)
            self.state = run.content
            if not isinstance(self.state.get("stages"), dict):
                raise BadInputError(f"{self.layout.run}: not the run.json of a run: it has no stages")
            # What follows reads the content as it is, and writes it.
            _ = run.record
            try:
                json_text(self.state)
            except ValueError as error:
                raise BadInputError(
                    f"{self.layout.run}: not the run.json of a run: it has NaN or Infinity, which JSON has not"
                ) from error
        elif path.exists() and (
            not path.is_dir() or not all(is_leftover(file.name) for file in path.iterdir())
        ):
            raise BadInputError(
                f"output {path} holds something that is not a run: expected a new or empty folder"
            )

    def describe(self, facts: dict[str, Any]) -> None:
        """Write run.json with what is known of the run; stage states are kept.

        Temporary files of an earlier command that was killed are removed.
        """
        for path in self.path.rglob(".*.tmp"):
            if is_leftover(path.name):
                path.unlink()
        self.state = {**facts, "stages": self.state["stages"]}
        self._save()

    def update(self, facts: dict[str, Any]) -> None:
        """Write further facts into run.json, in place of those of the same names."""
        self.state |= facts
        self._save()

    def note_evaluated(
        self, variant: str, *, trained: bool, skipped: str | None = None, tasks: list[str] | None = None
    ) -> None:
        """Write into run.json that a variant's evaluation has ended.

        Args:
            variant: which variant.
            trained: whether its experts were trained.
            skipped: why it was not evaluated; None if it was.
            tasks: the tasks that it answered, where these are not all of the run's.
        """
        known = self.state.get("evaluated", {})
        ended = {"trained": trained, "skipped": skipped, "tasks": tasks}
        self.update({"evaluated": {**known, variant: ended}})
        self.write_manifest()

    def is_done(self, stage: str, key: str, writes: Iterable[Path] = ()) -> bool:
        """Return whether a stage was finished with this fingerprint and the files that it writes are unchanged."""
        return self.was_done(stage, key) and self.damage(stage, writes) is None

    def was_done(self, stage: str, key: str) -> bool:
        """Return whether a stage was finished with this fingerprint, whatever happened to its files since.

        A record without hashes is of an earlier version, which cannot show whether its files have changed since.
        """
        record = self.state["stages"].get(stage)
        return bool(record and record["fingerprint"] == key and "files" in record)

    def damage(self, stage: str, writes: Iterable[Path] = ()) -> str | None:
        """Return the first missing or changed file of a finished stage, with its damage, or None.

        Args:
            stage: its name.
            writes: files that it must have recorded, and folders, whose files it may have.
        """
        recorded = self.state["stages"][stage]["files"]
        for path in writes:
            if not path.is_dir() and (name := path.relative_to(self.path).as_posix()) not in recorded:
                return f"{name} has no hash in {self.layout.run.name}"
        for name, written in recorded.items():
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
        record: dict[str, Any] = {"fingerprint": key, "state": "started", "seconds": spent}
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
        self.on_stage(stage, record["seconds"])

    def write_manifest(self) -> None:
        """Write size and sha256 of every whole file; unchanged files are not read again."""
        names = [name for name in self._files(self.path) if name != MANIFEST and not is_unfinished(name)]
        write_json(self.layout.manifest, {"files": {name: self._hashed(name) for name in names}})

    def hash_of(self, path: Path) -> str:
        """Return the sha256 of a file of the run."""
        return str(self._hashed(path.relative_to(self.path).as_posix())["sha256"])

    def write_again(self, path: Path, value: Any) -> None:
        """Write a JSON file that each command makes anew, and name it where someone has changed or removed it."""
        name, text = path.relative_to(self.path).as_posix(), json_text(value)
        if name in self._left and not path.is_file():
            say(f"{name} is missing: making it again")
        # A command that was stopped may have written it and not the manifest.
        elif name in self._left and not self.was_left(path) and path.read_bytes() != text.encode():
            say(f"{name} is not what the run wrote: making it again")
        write_text(path, text)

    def was_left(self, path: Path) -> bool:
        """Say whether a file is what the manifest listed when the folder was opened; without one, no file is."""
        name = path.relative_to(self.path).as_posix()
        return name in self._left and self._left[name].model_dump() == self._hashed(name)

    def _listed(self) -> dict[str, FileRecord]:
        try:
            return read_manifest(self.path)
        except BadInputError:
            return {}

    def _files(self, path: Path) -> list[str]:
        """Return the names in the run folder of a file, or of all files in a folder."""
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        return [file.relative_to(self.path).as_posix() for file in files]

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
        write_json(self.layout.run, self.state)
