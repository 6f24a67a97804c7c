"""The sweep file, and the runs that it spans."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from harness.base.errors import BadInputError, nearest
from harness.base.fingerprint import fingerprint
from harness.base.schema import read_yaml
from harness.base.settings import Settings
from harness.config import RunConfig, make_config, setting_names

_LONGEST_NAME = 80


class Resources(Settings):
    """The resources of one run."""

    cpus: int = Field(1, ge=1)
    """CPU cores, and threads of each library."""
    gpus: float = Field(0, ge=0)
    """GPUs; a share of one counts with Ray only."""
    memory_gib: float | None = Field(None, gt=0)
    """Main memory, which Ray keeps free for it."""


class SweepFile(Settings):
    """A sweep file.

    Attributes:
        base: settings of every run, as in a `--config` file.
        axes: settings to vary. An axis is called by a setting and lists values of it, or has a name of its own and maps
            labels to several settings each.
        resources: of one run.
        retries: how often Ray begins a run again whose node was lost.
    """

    base: dict[str, Any] = Field(default_factory=dict)
    axes: dict[str, list[Any] | dict[str, dict[str, Any]]]
    resources: Resources = Resources()
    retries: int = Field(3, ge=0)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: of its folder; depends on the cell's own settings alone.
        labels: by axis, its label in tables.
        config: its configuration.
    """

    name: str
    labels: Mapping[str, str]
    config: RunConfig

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return self.config.model_dump(mode="json")

    def record(self) -> dict[str, Any]:
        """Return it as sweep.json lists it."""
        return {"name": self.name, "labels": dict(self.labels), "config": self.settings}

    @property
    def key(self) -> str:
        """Fingerprint of the configuration."""
        return fingerprint(self.settings)

    @property
    def group(self) -> str:
        """Fingerprint of what decides the base model's answers; runs of one group share them."""
        decisive = self.config.deciding("prompts", "answers", "measures")
        # The seed reaches base through the splits, which have their own, and through sampled answers.
        if self.config.generation.answers is None:
            del decisive["seed"]
        return fingerprint(decisive)


@dataclass(frozen=True)
class Sweep:
    """The content of a sweep file.

    Attributes:
        file: where it was read.
        cells: its runs, no two alike.
        merged: combinations that were left out, since another has the same configuration.
    """

    file: Path
    cells: tuple[Cell, ...]
    merged: int
    resources: Resources
    retries: int


def read_sweep(file: Path) -> Sweep:
    """Read a sweep file and check every run's settings.

    Raises:
        BadInputError: one line names the file, the axis, the value and what was expected.
    """
    content = read_yaml(file, SweepFile)
    if not content.axes:
        raise BadInputError(f"{file}: axes: expected one setting to vary or more, such as `seed: [0, 1, 2]`")
    for name, values in content.axes.items():
        if not values:
            raise BadInputError(f"{file}: axes.{name} is empty: expected one value or more")
    axes = [list(_choices(file, *axis)) for axis in content.axes.items()]
    combinations = [_cell(file, content.base, choices) for choices in itertools.product(*axes)]
    cells: dict[str, Cell] = {}
    for cell in combinations:
        cells.setdefault(cell.key, cell)
    merged = len(combinations) - len(cells)
    return Sweep(file, tuple(cells.values()), merged, content.resources, content.retries)


@dataclass(frozen=True)
class _Choice:
    axis: str
    label: str
    settings: Mapping[str, Any]


def _choices(file: Path, axis: str, values: list[Any] | dict[str, dict[str, Any]]) -> Iterator[_Choice]:
    known = setting_names()
    if isinstance(values, list):
        if axis not in known:
            raise BadInputError(
                f"{file}: axes.{axis} is not a setting, {nearest(axis, known)}; an axis with a name of its own maps "
                "labels to settings"
            )
        for value in values:
            yield _Choice(axis, _label(value), {axis: value})
        return
    for label, settings in values.items():
        for name in settings:
            if name not in known:
                raise BadInputError(
                    f"{file}: axes.{axis}.{label}: unknown setting '{name}', {nearest(name, known)}"
                )
        yield _Choice(axis, label, settings)


def _cell(file: Path, base: Mapping[str, Any], choices: tuple[_Choice, ...]) -> Cell:
    settings: dict[str, Any] = {}
    for choice in choices:
        twice = settings.keys() & choice.settings.keys()
        if twice:
            raise BadInputError(
                f"{file}: axes.{choice.axis} sets {min(twice)}, which another axis sets as well"
            )
        settings |= choice.settings
    try:
        # A copy: settings are put into the groups of the base.
        config = _absolute(make_config({**copy.deepcopy(dict(base)), **settings}))
    except BadInputError as error:
        where = ", ".join(f"{choice.axis} = {choice.label}" for choice in choices)
        raise BadInputError(f"{file}: {error} (at {where})") from error
    labels = {choice.axis: choice.label for choice in choices}
    return Cell(_name(labels, config), labels, config)


def _absolute(config: RunConfig) -> RunConfig:
    """Return the configuration for a process in another working directory."""
    changed: dict[str, Any] = {
        "data_dir": [path.absolute() for path in config.data_dir],
        "include": [path.absolute() for path in config.include],
        "card": config.card and config.card.absolute(),
    }
    if Path(config.model).is_dir():
        changed["model"] = str(Path(config.model).absolute())
    return config.model_copy(update=changed)


def _label(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return str(value)


def _name(labels: Mapping[str, str], config: RunConfig) -> str:
    """Return a name that says what varies and is the cell's own."""
    parts = [
        f"{axis.rpartition('.')[2]}-{Path(label).name}" if not label.isidentifier() else label
        for axis, label in labels.items()
    ]
    readable = re.sub(r"[^A-Za-z0-9._=-]+", "-", "_".join(parts)).strip("-._")[:_LONGEST_NAME]
    return f"{readable}_{fingerprint(config.model_dump(mode='json'))[:8]}"
