"""A sweep's progress: a live table on a terminal, a line per change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.base.progress import say
from harness.sweep.folder import CellState, SweepFolder

if TYPE_CHECKING:
    from rich.table import Table

_COLOURS = {"waiting": "dim", "running": "cyan", "finished": "green", "failed": "red"}

Listed = Sequence[tuple[str, Mapping[str, str]]]


def table(listed: Listed, states: Mapping[str, CellState], folder: SweepFolder) -> Table:
    """Return every run with its place on each axis, its state, its time and why it failed."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, caption=counted(states), caption_justify="left")
    axes = list(listed[0][1]) if listed else []
    for axis in axes:
        shown.add_column(axis)
    for heading in ("state", "time", "node"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("", overflow="fold")
    for name, labels in listed:
        state = states.get(name, CellState())
        stage = folder.last_stage(name) if state.state == "running" else None
        progress = (f"after {stage}" if stage else "starting") if state.state == "running" else ""
        shown.add_row(
            *(Text(labels.get(axis, "")) for axis in axes),
            Text(state.state, style=_COLOURS[state.state]),
            _time(state),
            Text(state.node or ""),
            Text(state.reason or progress),
        )
    return shown


def rows(listed: Listed, states: Mapping[str, CellState], folder: SweepFolder) -> list[dict[str, Any]]:
    """Return the same for programs."""
    fields = {"state", "reason", "exit_code", "node", "attempt", "seconds"}
    kept = {name: states.get(name, CellState()).model_dump(include=fields) for name, _ in listed}
    return [
        {"name": name, "labels": dict(labels), "run": str(folder.run(name)), **kept[name]}
        for name, labels in listed
    ]


def counted(states: Mapping[str, CellState]) -> str:
    """Return how many runs are in which state."""
    numbers = {name: sum(state.state == name for state in states.values()) for name in _COLOURS}
    return ", ".join(f"{n} {name}" for name, n in numbers.items() if n)


@contextmanager
def live(listed: Listed, folder: SweepFolder) -> Iterator[Callable[[Mapping[str, CellState]], None]]:
    """Show a sweep while it runs; yields a function that takes the states."""
    if not sys.stderr.isatty():
        yield _lines(len(listed))
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), refresh_per_second=2) as shown:
        yield lambda states: shown.update(table(listed, states, folder))


def _lines(total: int) -> Callable[[Mapping[str, CellState]], None]:
    before: dict[str, str] = {}

    def tell(states: Mapping[str, CellState]) -> None:
        for name, state in states.items():
            if before.get(name, "waiting") != state.state:
                ended = [each for each in states.values() if each.state in ("finished", "failed")]
                spent = f" in {_time(state)}" if state in ended and state.seconds else ""
                why = f": {state.reason}" if state.reason else ""
                say(f"{len(ended)}/{total} {name} {state.state}{spent}{why}")
            before[name] = state.state

    return tell


def _time(state: CellState) -> str:
    seconds = state.seconds
    if state.state == "running" and state.started:
        seconds = time.time() - state.started
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
