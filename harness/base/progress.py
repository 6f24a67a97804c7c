"""Progress of long steps: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from harness.base.visible import visible

_SECONDS_BETWEEN_LINES = 15.0


def progress(description: str, total: int, unit: str = "") -> AbstractContextManager[Callable[[int], None]]:
    """Show the progress of a step; the function that it gives advances it."""
    return _bar(description, total) if sys.stderr.isatty() else _lines(description, total, unit)


def say(message: str) -> None:
    """Print a message for the user on stderr, apart from the results."""
    from rich.console import Console

    Console(stderr=True, highlight=False).print(visible(message, lines=True), markup=False, soft_wrap=True)


@contextmanager
def _bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n: bar.advance(task, n)


@contextmanager
def _lines(description: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    started = last = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES and done < total:
            last = now
            print(f"{description}: {done}/{total} {unit}".rstrip(), file=sys.stderr, flush=True)

    yield advance
    print(
        f"{description}: {done}/{total} {unit} in {time.monotonic() - started:.1f} s",
        file=sys.stderr,
        flush=True,
    )
