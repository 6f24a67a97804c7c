"""Doing a sweep: which run is next, what was finished before, and the leaderboard at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from harness.base.errors import BadInputError
from harness.sweep.executors import Executor
from harness.sweep.folder import SWEEP_FILE, CellState, SweepFolder
from harness.sweep.job import Job
from harness.sweep.results import Results
from harness.sweep.schema import Cell, Sweep

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass
class Outcome:
    """How a sweep went.

    Attributes:
        states: of every run, by name.
        redone: names of the runs that were done by this call.
    """

    states: dict[str, CellState] = field(default_factory=dict)
    redone: list[str] = field(default_factory=list)

    @property
    def failed(self) -> dict[str, str]:
        """Why runs failed, by name."""
        failed = {name: state for name, state in self.states.items() if state.state == "failed"}
        return {name: state.reason or "no reason given" for name, state in failed.items()}


@contextmanager
def opened(folder: SweepFolder, sweep: Sweep) -> Iterator[None]:
    """Hold a sweep's folder, so that no second process does the same runs.

    Raises:
        BadInputError: the folder holds something else, or another process has it.
    """
    folder.check()
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / ".lock", timeout=0)
    try:
        with lock:
            folder.describe(sweep)
            yield
    except Timeout as error:
        raise BadInputError(
            f"another process runs the sweep in {folder.path}: see harness sweep --status"
        ) from error


def drive(
    sweep: Sweep,
    folder: SweepFolder,
    executor: Executor,
    results: str | None = None,
    show: Callable[[Mapping[str, CellState]], None] = lambda states: None,
) -> Outcome:
    """Do every run that is not finished; one that fails does not stop the others.

    One of the runs with the same base model and prompts goes first and lends the others its results for base.

    Args:
        sweep: what to do.
        folder: where, held with `opened`.
        executor: what does the runs; closed at the end.
        results: where finished runs are copied to.
        show: called with the state of every run, again and again.
    """
    kept = Results(results) if results else None
    outcome = Outcome()
    finished: dict[str, str] = {}  # by group, a run that can lend
    waiting = [cell for cell in sweep.cells if not folder.is_finished(cell)]
    for cell in sweep.cells:
        outcome.states[cell.name] = CellState() if cell in waiting else folder.state(cell.name)
        if cell not in waiting:
            finished.setdefault(cell.group, cell.name)
    running: dict[str, Cell] = {}
    submitted: dict[str, float] = {}
    tried = set(finished)
    try:
        while waiting or running:
            for cell in list(waiting):
                # Until a run of its group has ended, one is enough: the others would do base as well.
                first = all(other.group != cell.group for other in running.values())
                if not ((first or cell.group in tried) and executor.free()):
                    continue
                waiting.remove(cell)
                running[cell.name] = cell
                submitted[cell.name] = time.time()
                donor, cpus = finished.get(cell.group), sweep.resources.cpus
                executor.submit(Job(cell.name, cell.settings, str(folder.path), donor, results, cpus))
            for name in running:
                # A cluster may keep a run waiting; that it runs is for the run to say.
                state = folder.state(name)
                if state.state == "running" and (state.started or 0.0) >= submitted[name]:
                    outcome.states[name] = state
            show(outcome.states)
            for name, state in executor.wait(_SECONDS_BETWEEN_LOOKS):
                cell = running.pop(name)
                folder.keep(name, state)
                outcome.states[name] = state
                outcome.redone.append(name)
                tried.add(cell.group)
                if state.state == "finished":
                    finished.setdefault(cell.group, name)
                show(outcome.states)
    finally:
        executor.close()
    if kept is not None:
        kept.put(folder.path / SWEEP_FILE, SWEEP_FILE)
        for name, state in outcome.states.items():
            if state.state == "finished":
                kept.fetch(name, folder.run(name))
    return outcome


def write_leaderboard(folder: SweepFolder, results: str | None = None, quiet: bool = False) -> list[Path]:
    """Write and print one leaderboard of the finished runs; returns its files, none where no run is finished."""
    from harness.report.boards.write import Outputs, write_once

    runs = folder.runs()
    if not runs:
        return []
    files = [folder.path / "leaderboard.html", folder.path / "leaderboard.md"]
    write_once(runs, Outputs(html=files[0], markdown=files[1], quiet=quiet))
    for file in files if results else []:
        Results(results or "").put(file, file.name)
    return files
