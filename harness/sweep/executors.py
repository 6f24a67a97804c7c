"""Executors do the runs of a sweep: here by processes of this machine, in `ray_executor.py` by tasks of a cluster."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from harness.sweep.folder import CellState
from harness.sweep.job import Job, run_job
from harness.sweep.schema import Resources


class Executor(Protocol):
    """Does runs, several at a time."""

    def free(self) -> bool:
        """Say whether another run can be taken on now."""

    def submit(self, job: Job) -> None:
        """Take on a run."""

    def wait(self, seconds: float) -> list[tuple[str, CellState]]:
        """Return the runs that ended, after so many seconds at the latest."""

    def close(self) -> None:
        """Stop whatever still runs."""


class LocalExecutor:
    """Processes of this machine.

    Args:
        jobs: how many at a time.
        devices: for each of them, the GPUs that it may see; None for all.
    """

    def __init__(self, jobs: int, devices: Sequence[str | None]) -> None:
        self._slots: list[str | None] = list(devices)[:jobs]
        self._ended: queue.Queue[tuple[str, CellState, str | None]] = queue.Queue()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._closed = threading.Event()

    def free(self) -> bool:
        """Say whether a slot is free."""
        return bool(self._slots)

    def submit(self, job: Job) -> None:
        """Begin a run in a free slot."""
        slot = self._slots.pop(0)
        threading.Thread(target=self._work, args=(replace(job, devices=slot), slot), daemon=True).start()

    def _work(self, job: Job, slot: str | None) -> None:
        def note(process: subprocess.Popen[bytes]) -> None:
            self._processes[job.name] = process
            if self._closed.is_set():
                process.kill()

        state = run_job(job, on_start=note)
        self._processes.pop(job.name, None)
        self._ended.put((job.name, state, slot))

    def wait(self, seconds: float) -> list[tuple[str, CellState]]:
        """Return the runs that ended."""
        try:
            ended = [self._ended.get(timeout=seconds)]
        except queue.Empty:
            return []
        while not self._ended.empty():
            ended.append(self._ended.get())
        self._slots += [slot for _, _, slot in ended]
        return [(name, state) for name, state, _ in ended]

    def close(self) -> None:
        """Kill what still runs; the next sweep resumes it."""
        self._closed.set()
        for process in list(self._processes.values()):
            process.kill()


def local_executor(resources: Resources, jobs: int | None) -> LocalExecutor:
    """Return an executor for this machine.

    Args:
        resources: what one run takes.
        jobs: how many at a time; by default as many as there are GPUs for, one without.
    """
    if not resources.gpus:
        return LocalExecutor(jobs or 1, [None] * (jobs or 1))
    each = max(1, round(resources.gpus))
    visible = _gpus()
    groups = [",".join(visible[at : at + each]) for at in range(0, len(visible) - each + 1, each)]
    # Without enough GPUs the run itself says what is missing.
    return LocalExecutor(jobs or len(groups) or 1, groups or [None])


def _gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [each for each in named.split(",") if each]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
