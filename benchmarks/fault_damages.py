"""Files of run folders, damaged in every way that is known, and every command that reads such a folder.

Damage may be refused in one line, be done again with a line that says so, or be without effect on any figure.
"""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fault_process import TRACEBACK, End, contents, plain, run

Damage = Callable[[Path, random.Random], bool]
"""Damages a file; returns whether there was something to damage in this way."""


def _changed(change: Callable[[bytes, random.Random], bytes]) -> Damage:
    def damage(path: Path, chance: random.Random) -> bool:
        content = path.read_bytes()
        changed = change(content, chance)
        path.write_bytes(changed)
        return changed != content

    return damage


def _flipped(content: bytes, chance: random.Random) -> bytes:
    if not content:
        return content
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def _one_of(pattern: bytes, new: Callable[[bytes], bytes]) -> Damage:
    """Return the damage that changes one of the places where a pattern is found."""

    def change(content: bytes, chance: random.Random) -> bytes:
        found = list(re.finditer(pattern, content))
        if not found:
            return content
        match = chance.choice(found)
        return content[: match.start()] + new(match[0]) + content[match.end() :]

    return _changed(change)


def _deleted(path: Path, chance: random.Random) -> bool:
    path.unlink()
    return True


def _swapped(path: Path, chance: random.Random) -> bool:
    """Put the file of another variant or task in a file's place, or another file of its kind."""
    others = sorted(
        other
        for other in _run_of(path).rglob(f"*{path.suffix}")
        if other.is_file() and other != path and other.read_bytes() != path.read_bytes()
    )
    alike = [other for other in others if other.name == path.name] or [
        other for other in others if other.parent == path.parent
    ]
    if not (alike or others):
        return False
    shutil.copyfile(chance.choice(alike or others), path)
    return True


def _run_of(path: Path) -> Path:
    return next(folder for folder in path.parents if (folder / "run.json").is_file() or folder.name == "run")


DAMAGES: dict[str, Damage] = {
    "emptied": _changed(lambda content, _: b""),
    "halved": _changed(lambda content, _: content[: len(content) // 2]),
    "without its last byte": _changed(lambda content, _: content[:-1]),
    "a bit flipped": _changed(_flipped),
    "deleted": _deleted,
    "an empty mapping": _changed(lambda content, _: b"{}\n"),
    "a list": _changed(lambda content, _: b"[]\n"),
    "a key renamed": _one_of(rb'"[a-z_]{3,}"(?=:)', lambda key: key[:-1] + b'x"'),
    "a figure changed": _one_of(rb"\d", lambda digit: bytes([48 + (digit[0] - 47) % 10])),
    "nested deeply": _changed(lambda content, _: b"[" * 100_000 + b"]" * 100_000),
    "another's": _swapped,
    "NaN": _one_of(rb"(?<=: )-?\d[\d.e-]*(?=[,}\n])", lambda number: b"NaN"),
}


@dataclass(frozen=True)
class Base:
    """A folder that is damaged, file by file.

    Attributes:
        name: of the state of the run: "finished", or where it was killed.
        pristine: a copy of it.
        expected: the contents of the run folder once a command has succeeded.
        ends: how each command ends on the undamaged folder, and what it writes.
    """

    name: str
    pristine: Path
    expected: dict[str, bytes]
    ends: dict[str, tuple[End, dict[str, bytes]]]


@dataclass(frozen=True)
class Place:
    """Where damages are done: the folders and files that commands name.

    Attributes:
        run: the run folder; paths are part of what a run records, so it is always the same.
        other: another finished run, for leaderboards.
        made: the folder that commands write to.
        gates: a file of gates that the undamaged run passes.
        command: the command of the run.
        log: where output goes.
    """

    run: Path
    other: Path
    made: Path
    gates: Path
    command: list[str]
    log: Path

    def commands(self) -> dict[str, list[str]]:
        """Return every command that reads a run folder, the cheap ones first."""
        folder = str(self.run)
        return {
            "check": ["check", folder, "--gates", str(self.gates)],
            "report": ["report", folder],
            "leaderboard": ["report", folder, str(self.other), "--json"],
            "analyze": ["analyze", folder, "--output", str(self.made)],
            "export": ["export", folder, str(self.made)],
            "measure": ["measure", folder],
            "evaluate": ["evaluate", "--output", folder],
            "run": self.command,
        }


def base(name: str, pristine: Path, expected: dict[str, bytes], place: Place) -> Base:
    """Return a folder to damage, once each command has been seen on it undamaged."""
    ends = {}
    for command, arguments in place.commands().items():
        _restore(pristine, place)
        ends[command] = (run(arguments, place.log), contents(place.made))
        if name == "finished" and (ends[command][0].code or contents(place.run) != expected):
            raise RuntimeError(f"{command} changes the undamaged run: {ends[command][0]}")
    return Base(name, pristine, expected, ends)


def kind_of(name: str) -> str:
    """Return the kind of a file of a run folder: its name without those of variants, tasks and judges."""
    name = re.sub(r"demo_(harmful|benign|twins)", "TASK", name)
    name = re.sub(r"\bbuiltin\b", "JUDGE", name)
    return re.sub(r"\b\d{5}\b", "BATCH", re.sub(r"variants/[^/]+", "variants/VARIANT", name))


def names(of: Base, seed: int) -> Iterator[str]:
    """Yield the name of each case: "STATE, COMMAND, DAMAGE, FILE", one file of each kind for every damage."""
    files: dict[str, list[str]] = {}
    for path in sorted(of.pristine.rglob("*")):
        if path.is_file():
            name = path.relative_to(of.pristine).as_posix()
            files.setdefault(kind_of(name), []).append(name)
    finished = of.name == "finished"
    for kind, alike in files.items():
        if not finished and ".partial" not in kind:
            continue
        for damage in DAMAGES:
            file = random.Random(f"{seed} {kind} {damage}").choice(alike)
            for command in of.ends if finished else ("check", "report", "run"):
                yield f"{of.name}, {command}, {damage}, {file}"


def damaged(name: str, of: Base, place: Place, seed: int) -> dict[str, str]:
    """Do one case; returns its "outcome", and "fault" where it is one."""
    _, command, damage, file = name.split(", ")
    _restore(of.pristine, place)
    path = place.run / file
    if not DAMAGES[damage](path, random.Random(f"{seed} {file} {damage}")):
        return {"outcome": "nothing to damage"}
    left = path.read_bytes() if path.exists() else None
    end = run(place.commands()[command], place.log)
    if end.code == TRACEBACK or end.code < 0:
        return {"fault": f"traceback: {' | '.join(end.err.strip().splitlines()[-3:])}"}
    undamaged, made = of.ends[command]
    if end.code:
        if end.why_no_refusal(alone=command not in ("run", "evaluate")) is None:
            return {"outcome": "refused"}
        return {"fault": f"{end.why_no_refusal(alone=True)}: {end.err[-500:]}"}
    if command == "check":
        return {"fault": f"PASS out of damage: {end.out[-300:]}"}
    now = contents(place.run)
    differing = sorted(
        name for name in now.keys() | of.expected.keys() if now.get(name) != of.expected.get(name)
    )
    said_again = file in end.err or Path(file).parent.as_posix() in end.err
    if differing not in ([], [file]):
        return {"fault": f"other files: {', '.join(differing)}"}
    if contents(place.made) != made or plain(end.out) != plain(undamaged.out):
        return {"fault": f"other output: {end.out[-300:]}"}
    restored = not differing and (path.read_bytes() if path.exists() else None) != left
    if restored and said_again:
        return {"outcome": "done again and said"}
    if restored and not _is_made_of_others(file):
        return {"fault": f"done again in silence: {end.err[-300:]}"}
    if of.name == "finished" and differing == [file] and command in ("run", "evaluate"):
        return {"fault": "left as it is, unnoticed"}
    return {"outcome": "no effect"}


def _is_made_of_others(file: str) -> bool:
    from harness.runs.layout import MANIFEST, Layout

    # run.json and the manifest are written anew by every command that goes on with a run.
    return Layout(Path()).is_made_of_others(file) or file in (MANIFEST, "run.json") or ".partial" in file


def _restore(pristine: Path, place: Place) -> None:
    shutil.rmtree(place.run, ignore_errors=True)
    shutil.rmtree(place.made, ignore_errors=True)
    shutil.copytree(pristine, place.run)
