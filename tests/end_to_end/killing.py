"""Commands that are killed and run again, as the tests ask for them; see kill_driver.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


class Driver:
    """A process that has run a command undisturbed and forks itself for the others."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self._log = process, log

    def end_of(self, command: list[str], moment: str | None = None) -> str:
        """Run a command, killed at a moment if there is one; returns how it ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"arguments": command, "moment": moment}) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> str:
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        assert said, self._log.read_text()[-3000:]
        return said


@contextmanager
def driver(undisturbed: list[str], folder: Path) -> Iterator[Driver]:
    """Start a driver, which runs the command first."""
    # A process whose autograd has threads for devices cannot be forked.
    env = os.environ | {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    program = [sys.executable, str(Path(__file__).with_name("kill_driver.py")), *undisturbed]
    log = folder / "driver.log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=env,
            cwd=REPOSITORY,
            text=True,
        ) as process,
    ):
        started = Driver(process, log)
        try:
            assert started.answer() == "code 0", log.read_text()[-3000:]
            yield started
        finally:
            process.kill()
