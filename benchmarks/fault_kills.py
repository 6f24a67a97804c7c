"""Runs that are killed and resumed: each ends with the bytes of an undisturbed one, and asks no prompt again."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fault_process import AtTime, AtWrite, End, contents, run

_KILLED = (-9, -14)
# Of three cases, one is killed a second time on its way to the end.
_TWICE = 3


@dataclass(frozen=True)
class Undisturbed:
    """What a run comes to that nobody disturbs.

    Attributes:
        command: of the run, which goes to `folder`.
        files: the folder's contents.
        renames: the files that it writes, in their order.
        seconds: how long it takes.
    """

    command: list[str]
    folder: Path
    files: dict[str, bytes]
    renames: list[str]
    seconds: float


def undisturbed(command: list[str], folder: Path, log: Path) -> Undisturbed:
    """Run a command into a new folder."""
    notes = log.with_suffix(".notes")
    _clear(folder, notes)
    started = time.perf_counter()
    end = run(command, log, notes=notes)
    if end.code:
        raise RuntimeError(f"the undisturbed run ended with code {end.code}: {end.err[-2000:]}")
    renames = _notes(notes)[-1]["renames"]
    return Undisturbed(command, folder, contents(folder), renames, time.perf_counter() - started)


def names(expected: Undisturbed, at_times: int, seed: int) -> Iterator[str]:
    """Yield the name of each case: one at every file that the run writes, and some at random times."""
    whens = ("within", "before", "after")
    for number in range(len(expected.renames)):
        yield f"write {number} {whens[(number + seed) % 3]}"
    yield from (f"time {number}" for number in range(at_times))


def killed(name: str, expected: Undisturbed, seed: int, log: Path) -> dict[str, str]:
    """Do one case; returns its outcome: "kind", and "fault" where it is one."""
    chance = random.Random(f"{seed} {name}")
    kind, _, place = name.partition(" ")
    first: AtWrite | AtTime = (
        AtWrite(int(place.split()[0]), place.split()[1])
        if kind == "write"
        else AtTime(chance.uniform(0, expected.seconds))
    )
    moments: list[AtWrite | AtTime | None] = [first]
    if chance.randrange(_TWICE) == 0:
        moments.append(AtTime(chance.uniform(0, expected.seconds)))
    notes = log.with_suffix(".notes")
    _clear(expected.folder, notes)
    answered: dict[str, set[str]] = {}
    for moment in [*moments, None]:
        notes.unlink(missing_ok=True)
        end = run(expected.command, log, moment, notes)
        fault = _fault(end, moment, answered, notes)
        if fault is not None:
            return {"kind": f"at a {kind}", "fault": f"{moment}: {fault}"}
        answered = _answered(expected.folder)
    return {"kind": f"at a {kind}"} | _compared(expected)


def _fault(
    end: End, moment: AtWrite | AtTime | None, answered: dict[str, set[str]], notes: Path
) -> str | None:
    ended = end.code in _KILLED if isinstance(moment, AtWrite) else end.code in (*_KILLED, 0)
    if (moment is None and end.code) or (moment is not None and not ended):
        return f"code {end.code}: {end.err[-1500:]}"
    for asked in _notes(notes):
        twice = set(asked.get("ids", [])) & answered.get(asked.get("target", ""), set())
        if twice:
            return f"asked again: {sorted(twice)[0]} of {asked['target']}"
    return None


def _compared(expected: Undisturbed) -> dict[str, str]:
    found = contents(expected.folder)
    differing = sorted(
        name for name in expected.files.keys() | found.keys() if expected.files.get(name) != found.get(name)
    )
    return {"fault": f"differs: {', '.join(differing)}"} if differing else {}


def _answered(folder: Path) -> dict[str, set[str]]:
    """Return the ids of the samples that have an answer on disk, by the file that it is in or will be."""
    answered: dict[str, set[str]] = {}
    for pattern in (
        "**/responses/*.jsonl",
        "routing/*.jsonl",
        "training/*.jsonl",
        "**/*.jsonl.partial/0*.jsonl",
    ):
        for path in folder.glob(pattern):
            target = str(path.parent if path.parent.name.endswith(".partial") else path).removesuffix(
                ".partial"
            )
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            answered.setdefault(target, set()).update(row["id"] for row in rows if "id" in row)
    return answered


def _notes(notes: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.is_file() else []


def _clear(folder: Path, notes: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    notes.unlink(missing_ok=True)
