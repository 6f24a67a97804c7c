"""Commands on a disk that is full at some moment: one line says so, and the command continues when there is room."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.fault_process import TRACEBACK, End, contents, plain, run

ROOMS_KB = (0, 4, 16, 60, 200, 700, 2_000, 5_000, 9_000, 14_000)
_ENOUGH_KB = 200_000
_LINE = re.compile(
    r"harness: /\S+: the disk is full: (\S+ [kMG]B needed, )?\S+ [kMG]B free; the same command .*\n"
    r"|harness: the new checkpoint takes \S+ [kMG]B, /\S+ has \S+ [kMG]B free: make room or .*\n"
)


@contextmanager
def disk(place: Path) -> Iterator[bool]:
    """Mount a disk whose size can be set; yields False where this user may not."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_ENOUGH_KB}k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _resize(place: Path, room_kb: int) -> None:
    """Leave so much room on the disk."""
    used = shutil.disk_usage(place).used // 1024
    # To tmpfs a size of 0 is no limit; a page is the least.
    size = max(used + room_kb, 4)
    subprocess.run(["mount", "-o", f"remount,size={size}k", "tmpfs", str(place)], check=True)


@dataclass(frozen=True)
class Work:
    """A command that writes to the disk.

    Attributes:
        arguments: of `harness`.
        before: a folder to copy to the disk first, or None.
        expected: how it ends where there is room, and the disk's contents then.
    """

    arguments: list[str]
    before: Path | None
    expected: tuple[End, dict[str, bytes]]


def works(place: Path, command: list[str], log: Path, kept: Path) -> dict[str, Work]:
    """Do every command that writes with room enough; the first makes the run folder that the others read.

    Args:
        place: the disk.
        command: of a run that saves its model, without --output.
        log: where output goes.
        kept: a folder beside the disk for a copy of the run.
    """
    folder, made = str(place / "run"), str(place / "made")
    shutil.rmtree(kept, ignore_errors=True)
    done: dict[str, Work] = {}
    for name, arguments in {
        "run": [*command, "--output", folder],
        "report": ["report", folder, "--redact", "--svg", f"{made}.svg"],
        "measure": ["measure", folder],
        "leaderboard": ["report", folder, str(kept), "--html", f"{made}.html", "--csv", f"{made}.csv"],
        "analyze": ["analyze", folder, "--output", made],
        "export": ["export", folder, made],
        "export for the guide": ["export", folder, made, "--format", "guide"],
        "apply": ["models", "apply", "demo", f"{folder}/variants/unsafe_experts/delta.safetensors", made],
    }.items():
        before = None if name == "run" else kept
        _restore(place, before)
        end = run(arguments, log)
        if end.code:
            raise RuntimeError(f"{name} does not work: {end}")
        done[name] = Work(arguments, before, (end, contents(place)))
        if name == "run":
            shutil.copytree(folder, kept)
    return done


def names(of: dict[str, Work]) -> Iterator[str]:
    """Yield the name of each case: "COMMAND, ROOM"."""
    yield from (f"{name}, {room}" for name in of for room in ROOMS_KB)


def filled(name: str, of: dict[str, Work], place: Path, log: Path) -> dict[str, str]:
    """Do one case; returns its "outcome", and "fault" where it is one."""
    command, _, room = name.partition(", ")
    work = of[command]
    _restore(place, work.before)
    _resize(place, int(room))
    end = run(work.arguments, log)
    _resize(place, _ENOUGH_KB)
    if end.code == TRACEBACK or end.code < 0:
        return {"fault": f"traceback: {' | '.join(end.err.strip().splitlines()[-3:])}"}
    undamaged, expected = work.expected
    if end.code == 0:
        if contents(place) == expected:
            return {"outcome": "there was room"}
        # Whoever asks for a report sees it, whether it can be written or not.
        if command == "report" and "cannot be written" in end.err and plain(end.out) == plain(undamaged.out):
            return {"outcome": "said and shown"}
        return {"fault": f"ends well without its files: {end.err[-500:]}"}
    last = end.err.splitlines(keepends=True)[-1:]
    if end.code != 1 or not last or not _LINE.fullmatch(last[0]) or end.err.count("harness: ") != 1:
        return {"fault": f"code {end.code}: {end.err[-500:]}"}
    again = run(work.arguments, log)
    if again.code or contents(place) != expected:
        found = contents(place)
        differing = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
        return {"fault": f"does not continue: code {again.code}, {differing}, {again.err[-500:]}"}
    return {"outcome": "said, and continued"}


def _restore(place: Path, before: Path | None) -> None:
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if before is not None:
        shutil.copytree(before, place / "run")
