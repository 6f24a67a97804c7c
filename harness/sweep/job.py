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
    """The description of a run that a process gets; goes over the network as it is.

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
    """Do a run, or resume it; never raises because of what the run does.

    Args:
        job: what to do.
        node: the name of this machine.
        on_start: called with the process.
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
        ended = _ended(state, "another process still writes to its folder")
    except OSError as error:
        ended = _ended(state, str(error))
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
        return _ended(state, _reason(folder.log(job.name), code), code)
    if results is not None:
        results.keep(run, job.name)
    return _ended(state, code=0)


def _environment(job: Job) -> dict[str, str]:
    # As many threads here as there, so that sums come out alike; Ray sets it too.
    environment = {"TOKENIZERS_PARALLELISM": "false", **os.environ, "OMP_NUM_THREADS": str(job.cpus)}
    return environment if job.devices is None else {**environment, "CUDA_VISIBLE_DEVICES": job.devices}


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
    printed = log.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line.strip() for line in printed if line.strip()]
    messages = [line.removeprefix("harness: ") for line in lines if line.startswith("harness: ")]
    return [f"exit code {code}", *lines[-1:], *messages[-1:]][-1]


def _ended(state: CellState, reason: str | None = None, code: int | None = None) -> CellState:
    """Return the state of a run that ends now, finished unless there is a reason why it failed."""
    seconds = round(time.time() - (state.started or time.time()), 3)
    name = "finished" if reason is None else "failed"
    return state.model_copy(update={"state": name, "reason": reason, "exit_code": code, "seconds": seconds})


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
