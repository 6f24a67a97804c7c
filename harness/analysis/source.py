"""What analyses and exports read of a run folder; nothing is changed and no model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from harness.base.errors import BadInputError, nearest
from harness.base.files import read_json
from harness.report.folder import RunFiles
from harness.routing.counts import PHASES, Phase, RoutingCounts, join
from harness.routing.files import load_counts, load_tokens, recorded
from harness.runs.layout import RUN as RUN_FILE
from harness.runs.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

    from harness.routing.tokens import RoutedTokens

Kind = Literal["harmful", "benign"]
KINDS: tuple[Kind, ...] = ("harmful", "benign")


class _Model(BaseModel):
    name: str
    path: str


class _Task(BaseModel):
    name: str
    kind: Kind


class _SelectionSettings(BaseModel):
    phase: str


class _Settings(BaseModel):
    intervention: str
    selection: _SelectionSettings


class _Run(BaseModel):
    model: _Model
    tasks: list[_Task]
    config: _Settings


class Selection(NamedTuple):
    """The (layer, expert) pairs that the run's intervention acts on, and the phase they were scored in."""

    experts: tuple[tuple[int, int], ...]
    phase: str


@dataclass(frozen=True)
class Source:
    """A run folder, to be read.

    Attributes:
        path: the folder.
        run: what is needed of run.json.
    """

    path: Path
    run: _Run

    @property
    def model_name(self) -> str:
        """The model's name as it was asked for."""
        return self.run.model.name

    @property
    def model_path(self) -> Path:
        """The folder that the model was read from; it may be gone."""
        return Path(self.run.model.path)

    def experts(self) -> pd.DataFrame:
        """Return the expert table.

        Raises:
            BadInputError: the run has none yet, or it cannot be read.
        """
        table = RunFiles(self.path).experts()
        if table is None:
            raise BadInputError(
                f"{self.path} has no experts.parquet: select experts first, with `harness select --output {self.path}`"
            )
        return table

    @cached_property
    def selection(self) -> Selection | None:
        """The experts of the intervention, or None where it acts on none.

        Raises:
            BadInputError: selection.json is there and cannot be read.
        """
        name = self.run.config.intervention
        pairs = RunFiles(self.path).selection(name)
        if pairs is None:
            return None
        phase = read_json(self.path / "variants" / name / "selection.json").get("phase")
        return Selection(tuple(pairs), phase if phase in PHASES else self.run.config.selection.phase)

    def phase(self, asked: str | None) -> Phase:
        """Return the phase to look at: the one asked for, or that of the selection.

        Raises:
            BadInputError: there is no such phase.
        """
        chosen = asked or (self.selection.phase if self.selection else self.run.config.selection.phase)
        if chosen not in PHASES:
            raise BadInputError(f"unknown phase '{chosen}': {nearest(chosen, PHASES)}")
        return chosen

    @cached_property
    def routing(self) -> dict[Kind, dict[str, Path]]:
        """The files of routing counts by kind and task, as far as the run's tasks have one."""
        kinds = {task.name: task.kind for task in self.run.tasks}
        found: dict[Kind, dict[str, Path]] = {kind: {} for kind in KINDS}
        # Looked up among the files that exist, so that no name in run.json can lead out of the folder.
        for path in sorted((self.path / "routing").glob("*.safetensors")):
            if path.stem in kinds:
                found[kinds[path.stem]][path.stem] = path
        return found

    def counts(self, kind: Kind) -> RoutingCounts:
        """Return the routing counts of all prompts of a kind.

        Raises:
            BadInputError: the run captured none, or a file cannot be read.
        """
        paths = self.routing[kind].values()
        if not paths:
            raise BadInputError(
                f"{self.path} has no routing of {kind} prompts: capture with both kinds of tasks"
            )
        return join([load_counts(path) for path in paths])

    def tokens(self, kind: Kind) -> Iterator[RoutedTokens]:
        """Yield the single tokens of each task of a kind."""
        for path in self.routing[kind].values():
            yield load_tokens(path, with_logits=False)

    def records_tokens(self) -> bool:
        """Say whether single tokens were recorded for every task."""
        paths = [path for kind in KINDS for path in self.routing[kind].values()]
        return bool(paths) and all(recorded(path) != "counts" for path in paths)


def open_run(path: Path) -> Source:
    """Open a run folder for reading.

    Raises:
        BadInputError: it is not the folder of a run, or its run.json cannot be read.
    """
    if not (path / RUN_FILE).is_file():
        raise BadInputError(f"{path} is not the folder of a run: it has no {RUN_FILE}")
    try:
        return Source(path, _Run.model_validate(RunFolder(path).state))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadInputError(f"{path / RUN_FILE}: {field}: {first['msg']}") from None
