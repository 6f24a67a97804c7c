"""A run's captured routing by kind of prompt, and the phase and experts that analyses and exports look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from harness.base.errors import BadInputError, nearest
from harness.routing.counts import PHASES, Phase, RoutingCounts, join
from harness.routing.files import recorded

if TYPE_CHECKING:
    from harness.routing.tokens import RoutedTokens
    from harness.runs.records import Selection
    from harness.runs.run import Run

Kind = Literal["harmful", "benign"]
KINDS: tuple[Kind, ...] = ("harmful", "benign")


def tasks_of(run: Run, kind: Kind) -> list[str]:
    """Return the captured tasks of a kind."""
    kinds = {task.name: task.kind for task in run.record.tasks}
    return [task for task in run.captured if kinds[task] == kind]


def counts_of(run: Run, kind: Kind) -> RoutingCounts:
    """Return the routing counts of all prompts of a kind.

    Raises:
        BadInputError: the run captured none, or a file cannot be read.
    """
    tasks = tasks_of(run, kind)
    if not tasks:
        raise BadInputError(f"{run.path} has no routing of {kind} prompts: capture with both kinds of tasks")
    return join([run.routing(task) for task in tasks])


def tokens_of(run: Run, kind: Kind) -> Iterator[RoutedTokens]:
    """Yield the single tokens of each task of a kind."""
    return (run.tokens(task) for task in tasks_of(run, kind))


def records_tokens(run: Run) -> bool:
    """Say whether single tokens were recorded for every task."""
    return bool(run.captured) and all(recorded(path) != "counts" for path in run.captured.values())


def selection_of(run: Run) -> Selection | None:
    """Return the experts that the run's intervention acts on, or None where it acts on none."""
    name = run.record.intervention
    return None if name is None else run.selection(name)


def direction_of(run: Run) -> Literal["unsafe", "safe"]:
    """Return whether experts were wanted that harmful prompts use more (unsafe) or less (safe)."""
    own = run.variants.get(str(run.record.intervention), {}).get("selection") or {}
    direction = own.get("direction") or run.record.config.get("selection", {}).get("direction")
    return "safe" if direction == "safe" else "unsafe"


def phase_of(run: Run, asked: str | None) -> Phase:
    """Return the phase to look at: the one asked for, or that of the selection, or that of the settings.

    Raises:
        BadInputError: there is no such phase.
    """
    selection = selection_of(run)
    kept = None if selection is None or selection.phase not in PHASES else selection.phase
    chosen = asked or kept or run.record.config.get("selection", {}).get("phase")
    for phase in PHASES:
        if phase == chosen:
            return phase
    raise BadInputError(f"unknown phase '{chosen}': {nearest(str(chosen), PHASES)}")
