"""Commands of the harness in forks of one warm process, undisturbed or killed at a moment.

The process that imports this has run a command before, so that a fork has imported everything: a command takes the time
of its work alone. What a fork changes (the hooks below) ends with it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_S = 300
"""A command that takes longer hangs."""

TRACEBACK = 99
"""The exit code of a command that ended with an exception that it should have turned into a line."""

# What ends a file: `harness.base.files` renames every file and folder into its place.
_WRITES = ("replace", "rename")


@dataclass(frozen=True)
class End:
    """How a command ended.

    Attributes:
        code: its exit code, or minus the signal that killed it.
        out: what it printed.
        err: what it said on stderr.
    """

    code: int
    out: str
    err: str

    def why_no_refusal(self, *, alone: bool) -> str | None:
        """Return what keeps this end from being bad input in one line, or None; `alone`: nothing else may be said."""
        lines = [line for line in self.err.splitlines() if line.startswith("harness: ")]
        if self.code != 2:
            return f"exit code {self.code}"
        if len(lines) != 1 or not self.err.endswith(f"{lines[0]}\n") or (alone and self.err.count("\n") != 1):
            return "not one line"
        return None


@dataclass(frozen=True)
class AtWrite:
    """A kill at the rename that puts a file into place.

    Attributes:
        number: which rename of the command, from 0.
        when: "within" (half of the file is written), "before" or "after" it.
    """

    number: int
    when: str


@dataclass(frozen=True)
class AtTime:
    """A kill after some seconds."""

    seconds: float


def run(
    arguments: list[str], log: Path, kill: AtWrite | AtTime | None = None, notes: Path | None = None
) -> End:
    """Run a command in a fork.

    Args:
        arguments: of `harness`.
        log: where the fork's output goes; `.out` and `.err` are put behind the name.
        kill: when it kills itself, as `kill -9` would.
        notes: a file that receives each batch of answers that is asked, and at the end what was renamed to.
    """
    places = [log.with_suffix(suffix) for suffix in (".out", ".err")]
    child = os.fork()
    if not child:
        _be_the_child(arguments, places, kill, notes)
    _, status = os.waitpid(child, 0)
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return End(code, *(place.read_text(encoding="utf-8", errors="replace") for place in places))


def _be_the_child(
    arguments: list[str], places: list[Path], kill: AtWrite | AtTime | None, notes: Path | None
) -> None:
    from harness.cli.main import main

    code = TRACEBACK
    try:
        for stream, place in zip((sys.stdout, sys.stderr), places, strict=True):
            opened = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, stream.fileno())
        renames = _watch_renames(kill)
        if notes is not None:
            _note_batches(notes)
        if isinstance(kill, AtTime):
            # Without a handler the signal ends the process at once.
            signal.setitimer(signal.ITIMER_REAL, kill.seconds)
        else:
            signal.alarm(LIMIT_S)
        code = main(arguments)
        signal.alarm(0)
        if notes is not None:
            with notes.open("a", encoding="utf-8") as file:
                print(json.dumps({"renames": renames}), file=file)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch_renames(kill: AtWrite | AtTime | None) -> list[str]:
    """Return the list that receives the target of each rename of this process; die at the one that is asked for."""
    done: list[str] = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def rename(source: Any, target: Any, **more: Any) -> None:
            now = kill.when if isinstance(kill, AtWrite) and kill.number == len(done) else None
            done.append(str(target))
            if now == "within" and Path(source).is_file():
                os.truncate(source, Path(source).stat().st_size // 2)
            if now in ("within", "before"):
                os.kill(os.getpid(), signal.SIGKILL)
            original(source, target, **more)
            if now == "after":
                os.kill(os.getpid(), signal.SIGKILL)

        return rename

    for name in _WRITES:
        setattr(os, name, counted(getattr(os, name)))
    return done


def _note_batches(notes: Path) -> None:
    """Note the ids of each batch of answers once its journal is asked to keep it."""
    from harness.runs.journal import BatchJournal

    original = BatchJournal.finish

    def finish(self: BatchJournal, batch: int, rows: list[dict[str, Any]]) -> None:
        with notes.open("a", encoding="utf-8") as file:
            asked = {"target": str(self.folder).removesuffix(".partial"), "ids": [row["id"] for row in rows]}
            print(json.dumps(asked), file=file)
        original(self, batch, rows)

    BatchJournal.finish = finish  # type: ignore[method-assign]


_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\+00:00| UTC)?")
_RUN_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
_SECONDS = re.compile(r"\b(\d+ h \d+ min|\d+ min \d+ s|\d+(\.\d+)? s)\b|(&#34;|\")seconds(&#34;|\"): [\d.]+")
_TIMED = ("run.json", "summary.json", "report.html", "report.md")


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every whole file of a run folder by name, without times and what is made of them."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".tmp"))
    return {path.relative_to(folder).as_posix(): _content(path) for path in files}


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    try:
        if path.name in ("run.json", "summary.json", "manifest.json"):
            made = json.loads(content)
            if path.name == "manifest.json":
                made["files"] = {
                    name: None if name in _TIMED else made["files"][name] for name in made["files"]
                }
            content = json.dumps(_without_seconds(made), indent=1).encode()
        if path.name in _TIMED:
            content = plain(content.decode()).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # damaged: as it is
    return content


def plain(text: str) -> str:
    """Return a text without the times and the run's id in it."""
    return _SECONDS.sub("SECONDS", _TIME.sub("TIME", _RUN_ID.sub("RUN", text)))


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seconds(inner) for key, inner in value.items() if key != "seconds"}
    return [_without_seconds(inner) for inner in value] if isinstance(value, list) else value
