"""A sweep's folder: which runs are finished, and the results that finished runs lend to others.

SWEEP/sweep.json          what is to be run
SWEEP/cells/NAME.json     how far each run is
SWEEP/configs/NAME.json   its settings
SWEEP/logs/NAME.log       what it printed
SWEEP/runs/NAME/          its run folder
SWEEP/leaderboard.html, leaderboard.md
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

import harness
from harness.base.errors import BadInputError
from harness.base.files import move_folder, read_json, write_json
from harness.base.fingerprint import fingerprint
from harness.base.schema import read_json_as
from harness.runs.layout import Layout
from harness.runs.run_folder import RunFolder
from harness.sweep.schema import Cell, Sweep

SWEEP_FILE = "sweep.json"
State = Literal["waiting", "running", "finished", "failed"]


class CellState(BaseModel):
    """How far a run of a sweep is, as kept in cells/NAME.json.

    Attributes:
        state: waiting, running, finished or failed.
        reason: why it failed.
        exit_code: of `harness run`.
        key: fingerprint of the configuration that it was run with.
        version: of the harness.
        weights: fingerprint of the sizes and times of the model's files, where it is a folder.
        node: where it ran.
        attempt: how often it was begun.
        started, seconds: of the last attempt; seconds since the epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: State = "waiting"
    reason: str | None = None
    exit_code: int | None = None
    key: str = ""
    version: str = ""
    weights: str | None = None
    node: str | None = None
    attempt: int = 0
    started: float | None = None
    seconds: float | None = None


class _Listed(BaseModel):
    name: str
    labels: dict[str, str]


class _Listing(BaseModel):
    """What is read of sweep.json."""

    cells: list[_Listed]


class SweepFolder:
    """The folder of a sweep.

    Args:
        path: a new or empty folder, or one that an earlier sweep left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def check(self) -> None:
        """Refuse a folder that holds something else.

        Raises:
            BadInputError: says so.
        """
        path = self.path
        used = path.exists() and (not path.is_dir() or any(path.iterdir()))
        if used and not (path / SWEEP_FILE).is_file():
            raise BadInputError(
                f"output {path} holds something that is not a sweep: expected a new or empty folder"
            )

    def describe(self, sweep: Sweep) -> None:
        """Write sweep.json; runs of an earlier version of the file stay where they are and are no longer listed."""
        cells = [cell.record() for cell in sweep.cells]
        content = {"file": str(sweep.file), "harness_version": harness.__version__, "cells": cells}
        write_json(self.path / SWEEP_FILE, content)

    def listed(self) -> list[tuple[str, dict[str, str]]]:
        """Return each run's name with its labels, as sweep.json has them.

        Raises:
            BadInputError: there is no sweep.json, or it is something else.
        """
        path = self.path / SWEEP_FILE
        if not path.is_file():
            raise BadInputError(f"{self.path} holds no {SWEEP_FILE}: expected the folder of a sweep")
        return [(cell.name, cell.labels) for cell in read_json_as(path, _Listing).cells]

    def run(self, name: str) -> Path:
        """Return a run's folder."""
        return self.path / "runs" / name

    def config(self, name: str) -> Path:
        """Return the file of a run's settings."""
        return self.path / "configs" / f"{name}.json"

    def log(self, name: str) -> Path:
        """Return the file of what a run printed."""
        return self.path / "logs" / f"{name}.log"

    def state(self, name: str) -> CellState:
        """Return how far a run is; one that was never begun is waiting.

        Raises:
            BadInputError: its file is damaged.
        """
        path = self.path / "cells" / f"{name}.json"
        if not path.is_file():
            return CellState()
        try:
            return read_json_as(path, CellState)
        except BadInputError as error:
            raise BadInputError(f"{error}; delete it to run {name} again") from None

    def keep(self, name: str, state: CellState) -> None:
        """Write down how far a run is."""
        write_json(self.path / "cells" / f"{name}.json", state.model_dump())

    def is_finished(self, cell: Cell) -> bool:
        """Say whether a run was finished with these settings, this harness and these files of its model."""
        state, inputs = self.state(cell.name), _inputs(cell)
        return state.state == "finished" and state.model_dump(include=set(inputs)) == inputs

    def last_stage(self, name: str) -> str | None:
        """Return the stage that a run ended last, where its folder can be seen from here."""
        path = Layout(self.run(name)).run
        stages: dict[str, Any] = read_json(path).get("stages", {}) if path.is_file() else {}
        return next(reversed(stages), None)

    def runs(self) -> list[Path]:
        """Return the folders of the listed runs that are finished and can be seen from here."""
        folders = [self.run(name) for name, _ in self.listed() if self.state(name).state == "finished"]
        return [folder for folder in folders if Layout(folder).summary.is_file()]


def begun(cell: Cell, node: str, attempt: int) -> CellState:
    """Return the state of a run that begins now."""
    started = time.time()
    return CellState(state="running", node=node, attempt=attempt, started=started, **_inputs(cell))


def _inputs(cell: Cell) -> dict[str, Any]:
    """Return the fields of `CellState` that decide whether a finished run would find anything else today."""
    folder, weights = Path(cell.config.model), None
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        weights = fingerprint([[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files])
    return {"key": cell.key, "version": harness.__version__, "weights": weights}


def lend_base(donor: Path, run: Path) -> list[str]:
    """Give a run folder that does not exist yet a finished run's results for the base model.

    Whether they fit is for the run to say: it skips a stage of the same fingerprint, and does another one again.

    Returns:
        The stages that were lent.
    """
    if run.exists() or not Layout(donor).run.is_file():
        return []
    known = read_json(Layout(donor).run)
    stages: dict[str, Any] = known["stages"]
    files = {file.relative_to(donor).as_posix() for file in Layout(donor).of_base()}
    lent = {
        name: {**record, "seconds": 0.0, "lent_by": donor.name}
        for name, record in stages.items()
        if record["state"] == "done" and record.get("files") and files.issuperset(record["files"])
    }
    partial = run.with_name(f"{run.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in files:
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(donor / name, target)
    # The donor's files are there before run.json says so.
    # With the clock of the chat template, without which answers would not be the same.
    clock = {"clock": known["clock"]} if "clock" in known else {}
    write_json(Layout(partial).run, {"stages": lent, **clock})
    RunFolder(partial).write_manifest()
    run.parent.mkdir(parents=True, exist_ok=True)
    move_folder(partial, run)
    return list(lent)
