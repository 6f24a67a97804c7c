"""The runs below a folder: finished, unfinished or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.base.errors import BadInputError
from harness.runs.integrity import MadeAnewError
from harness.runs.layout import Layout, run_folders
from harness.runs.run import Run

State = Literal["finished", "unfinished", "being made anew", "damaged"]


class Listed(NamedTuple):
    """One run folder.

    Attributes:
        name: the folder's name.
        model: the model as it was asked for; None where run.json does not say, as below.
        intervention: the variant that the run evaluates.
        date: when the run was started, in ISO 8601.
        state: damaged where run.json, splits.json or the summary is not what the run wrote.
        path: the folder.
        reason: what is damaged; None otherwise.
    """

    name: str
    model: str | None
    intervention: str | None
    date: str | None
    state: State
    path: str
    reason: str | None = None


def list_runs(place: Path) -> list[Listed]:
    """Return the runs below a folder, the newest first.

    Raises:
        BadInputError: there is no such folder, or it holds no run.
    """
    if not place.is_dir():
        raise BadInputError(f"{place}: no such folder; expected a folder of runs")
    folders = [place] if Layout(place).is_run() else list(run_folders(place))
    if not folders:
        raise BadInputError(f"{place}: holds no run")
    return sorted((_listed(folder) for folder in folders), key=lambda row: row.date or "", reverse=True)


def newest(place: Path = Path("runs")) -> Path:
    """Return the newest finished run below a folder.

    Raises:
        BadInputError: there is none.
    """
    finished = [Path(row.path) for row in list_runs(place) if row.state == "finished"]
    if not finished:
        raise BadInputError(f"{place}: holds no finished run; `harness runs list` says how far each one came")
    return finished[0]


def state_of(run: Run) -> tuple[State, str | None]:
    """Return a run's state and, where it is damaged, the reason.

    The files of answers, verdicts and weights are not read (`Run.verify` reads them).
    """
    if not run.is_finished:
        return "unfinished", None
    try:
        run.verify(run.layout.summary, run.layout.run, run.layout.splits)
        _ = run.summary
    except MadeAnewError:
        return "being made anew", None
    except BadInputError as error:
        return "damaged", str(error)
    return "finished", None


def facts_of(run: Run) -> dict[str, Any]:
    """Return the facts of one run: model, tasks, variants with their specification, stages with their seconds."""
    record, (state, reason) = run.record, state_of(run)
    return {
        "name": run.path.resolve().name,
        "path": str(run.path),
        "state": state,
        "reason": reason,
        "run_id": record.run_id,
        "date": record.created,
        "model": None if record.model is None else record.model.name,
        "intervention": record.intervention,
        "judge": record.judge,
        "tasks": [task.name for task in record.tasks],
        "device": record.device,
        "versions": record.versions,
        "seeds": record.seeds,
        "variants": {} if state == "damaged" else run.variants,
        "seconds": {name: stage.seconds for name, stage in record.stages.items()},
    }


def _listed(path: Path) -> Listed:
    try:
        facts = facts_of(Run(path))
    except BadInputError as error:
        return Listed(path.resolve().name, None, None, None, "damaged", str(path), str(error))
    return Listed(**{name: facts[name] for name in Listed._fields})
