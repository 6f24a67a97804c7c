"""One run of a sweep, as a process of its own: the same on this machine and on a node of a cluster."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.base.files import write_json
from harness.config import RunConfig
from harness.sweep.folder import CellState, SweepFolder, begun, lend_base
from harness.sweep.results import Results
from harness.sweep.schema import Cell

# How long a run waits for a process that still writes to its folder, such as one on a node that is about to die.
_PATIENCE = 300.0
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True)
class Job:
    """What a process needs to know of a run; goes over the network as it is.

    Attributes:
        name: of the run.
        settings: its configuration.
        sweep: folder of the sweep.
        donor: finished run with the same base model and prompts, if any.
        results: where finished runs are copied to.
        cpus: threads of each library.
        devices: GPUs that it may see; None for all.
    """

    name: str
    settings: dict[str, Any]
    sweep: str
    donor: str | None = None
    results: str | None = None
    cpus: int = 1
    devices: str | None = None


def run_job(
    job: Job,
    node: str | None = None,
    on_start: Callable[[subprocess.Popen[bytes]], None] = lambda process: None,
    wait_after_kill: float = 0.0,
) -> CellState:
    """Do a run, or go on with it; never raises because of what the run does.

    Args:
        job: what to do.
        node: what this machine is called.
        on_start: told of the process.
        wait_after_kill: seconds before a run that was killed counts as failed. On a node that is dying its run is
            killed first; this process follows within that time, and nobody takes the run for failed.

    Returns:
        How it ended, which is also kept in the sweep's folder.
    """
    folder = SweepFolder(Path(job.sweep))
    cell = Cell(job.name, {}, RunConfig.model_validate(job.settings))
    state = begun(cell, node or socket.gethostname(), folder.state(job.name).attempt + 1)
    folder.keep(job.name, state)
    lock = FileLock(_made(folder.path / "locks" / f"{job.name}.lock"), timeout=_PATIENCE)
    try:
        with lock:
            ended = _run(job, folder, state, on_start)
            if ended.exit_code is not None and ended.exit_code < 0:
                time.sleep(wait_after_kill)
    except Timeout:
        ended = _failed(state, "another process still writes to its folder")
    except OSError as error:
        ended = _failed(state, str(error))
    folder.keep(job.name, ended)
    return ended


def _run(
    job: Job,
    folder: SweepFolder,
    state: CellState,
    on_start: Callable[[subprocess.Popen[bytes]], None],
) -> CellState:
    run, results = folder.run(job.name), Results(job.results) if job.results else None
    if results is not None:
        results.fetch(job.name, run)
        if job.donor is not None:
            results.fetch(job.donor, folder.run(job.donor))
    if job.donor is not None:
        lend_base(folder.run(job.donor), run)
    write_json(folder.config(job.name), job.settings)
    command = [sys.executable, "-m", "harness", "run", "--config", str(folder.config(job.name))]
    with _made(folder.log(job.name)).open("ab") as log:
        process = subprocess.Popen(
            [*command, "--output", str(run)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(job),
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        on_start(process)
        code = process.wait()
    if code != 0:
        return _failed(state, _reason(folder.log(job.name), code), code)
    if results is not None:
        results.keep(run, job.name)
    return _ended(state, state="finished", exit_code=0)


def _environment(job: Job) -> dict[str, str]:
    environment = dict(os.environ)
    # As many threads here as there, so that sums come out alike; Ray sets it too.
    environment["OMP_NUM_THREADS"] = str(job.cpus)
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    if job.devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = job.devices
    return environment


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Let the kernel kill this process when the one that began it is gone, so that nothing writes on unseen."""
    assert _LIBC is not None
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def _reason(log: Path, code: int) -> str:
    """Return why a run failed: its own line, or what killed it."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    said = [line for line in lines if line.startswith("harness: ")]
    return said[-1].removeprefix("harness: ") if said else (lines[-1] if lines else f"exit code {code}")


def _failed(state: CellState, reason: str, code: int | None = None) -> CellState:
    return _ended(state, state="failed", reason=reason, exit_code=code)


def _ended(begun_state: CellState, **changed: Any) -> CellState:
    seconds = round(time.time() - (begun_state.started or time.time()), 3)
    return begun_state.model_copy(update={"seconds": seconds, **changed})


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
