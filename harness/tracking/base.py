"""The interface of a tracker, and the trackers there are.

A tracker is told things and asked nothing: no result of a run depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from harness.base.errors import BadInputError, first_line
from harness.base.extras import EXTRAS, pip_line
from harness.base.registry import Registry

PROJECT = "moe-safety-harness"


@dataclass(frozen=True)
class About:
    """A run, as a tracker lists it.

    Attributes:
        id: the run's own id; a run that is continued has the same.
        name: of its folder.
        settings: by dotted name, and what was resolved of them.
    """

    id: str
    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """A table of texts and numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Tracker(Protocol):
    """One tracker: a small class in one file. Any method may raise: the run goes on without it."""

    package: str
    """What pip installs, and what is imported."""

    def begin(self, about: About) -> str | None:
        """Begin a run, or continue it; returns where to see it, where there is such a place."""

    def log(self, values: Mapping[str, float]) -> None:
        """Take values of one moment, by name."""

    def results(self, figures: Mapping[str, float], tables: Mapping[str, Shown]) -> None:
        """Take what the run found: figures by name, and tables."""

    def report(self, page: Path) -> None:
        """Keep the report, one HTML file that may be gone afterwards."""

    def end(self, failed: bool) -> None:
        """End the run, and send what was not sent yet."""


TRACKERS: Registry[type[Tracker]] = Registry("tracker")
TRACKERS.add("wandb", "harness.tracking.to_wandb:Wandb")
TRACKERS.add("trackio", "harness.tracking.to_trackio:Trackio")


def find_tracker(name: str) -> Tracker:
    """Return a tracker whose package can be imported.

    Raises:
        BadInputError: there is none of this name, or its package is not installed or broken.
    """
    tracker = TRACKERS.get(name)()
    # A tracker of another package has no extra here.
    remedy = pip_line(name) if name in EXTRAS else f"pip install {tracker.package}"
    try:
        # A folder of the tracker's own output is called like it, and can be imported too.
        version(tracker.package)
        import_module(tracker.package)
    except PackageNotFoundError:
        raise BadInputError(
            f"--track {name} needs the package {tracker.package}, which is not installed: {remedy}"
        ) from None
    except Exception as error:
        raise BadInputError(
            f"--track {name}: {tracker.package} cannot be imported ({first_line(error)}): {remedy}"
        ) from error
    return tracker
