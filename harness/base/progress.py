"""Progress of long work: bars on a terminal, plain lines elsewhere; a job whose pieces are known is shown as a whole.

Steps are begun deep within engines and judges, which know nothing of the job: what shows them is that of the context.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from harness.base.forecast import Forecast, Piece, in_words
from harness.base.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

_SECONDS_BETWEEN_LINES = 15.0
# Parts of a job that take less than this have no line of their own.
_SECONDS_OF_A_PART = 5.0

Advance = Callable[[int], None]


class _Show(Protocol):
    """What shows a job."""

    def step(self, description: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Show a step of the job."""

    def say(self, message: str) -> None:
        """Show a message for the user."""

    def begin(self, name: str) -> None:
        """Begin a piece of the job."""

    def end(self, name: str) -> None:
        """End a piece of the job."""

    def skip(self, name: str) -> None:
        """Pass over a piece of the job that was done before."""


_SHOWN: ContextVar[_Show | None] = ContextVar("what shows the job", default=None)


def progress(description: str, total: int, unit: str = "") -> AbstractContextManager[Advance]:
    """Show the progress of a step; the function that it gives advances it."""
    show = _SHOWN.get()
    if show is not None:
        return show.step(description, total, unit)
    return _bar(description, total) if sys.stderr.isatty() else _lines(description, total, unit)


def say(message: str) -> None:
    """Print a message for the user on stderr, apart from the results."""
    show = _SHOWN.get()
    if show is None:
        _print(_console(), message)
    else:
        show.say(message)


@contextmanager
def piece(name: str) -> Iterator[None]:
    """Do a piece of the job that is shown, if one is."""
    show = _SHOWN.get()
    if show is not None:
        show.begin(name)
    yield
    if show is not None:
        show.end(name)


def pass_over(name: str) -> None:
    """Say that a piece of the job was done before."""
    show = _SHOWN.get()
    if show is not None:
        show.skip(name)


@contextmanager
def job(pieces: Mapping[str, Piece], quiet: bool = False) -> Iterator[None]:
    """Show the work inside the block as a whole: the part it is at, the step, and the time left.

    Args:
        pieces: what is to be done, by the names that `piece` and `pass_over` are given, in their order.
        quiet: show neither progress nor messages.
    """
    forecast = Forecast(pieces)
    opened: AbstractContextManager[_Show] = nullcontext(_Quiet() if quiet else _Lines(forecast))
    if not quiet and sys.stderr.isatty():
        opened = _Live.opened(forecast)
    with opened as show:
        token = _SHOWN.set(show)
        try:
            yield
        finally:
            _SHOWN.reset(token)


class _Quiet:
    def step(self, description: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        return nullcontext(lambda n: None)

    def say(self, message: str) -> None:
        pass

    def begin(self, name: str) -> None:
        pass

    def end(self, name: str) -> None:
        pass

    def skip(self, name: str) -> None:
        pass


class _Forecasting:
    """What shows a job whose forecast follows its pieces and steps."""

    def __init__(self, forecast: Forecast) -> None:
        self.forecast = forecast

    def end(self, name: str) -> None:
        self.forecast.end(name)

    def skip(self, name: str) -> None:
        self.forecast.skip(name)

    def counting(self, total: int, show: Callable[[int], None]) -> Advance:
        """Return what advances a step: it tells the forecast, and shows how many are done."""
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            self.forecast.advance(done / total if total else 0.0)
            show(done)

        return advance


class _Lines(_Forecasting):
    """A line where a part of the job begins, and now and then within a long one."""

    def __init__(self, forecast: Forecast) -> None:
        super().__init__(forecast)
        self.part = ""
        self.last = float("-inf")

    @contextmanager
    def step(self, description: str, total: int, unit: str) -> Iterator[Advance]:
        def show(done: int) -> None:
            if time.monotonic() - self.last >= _SECONDS_BETWEEN_LINES and done < total:
                self.line(f": {description} {done}/{total} {unit}".rstrip())

        yield self.counting(total, show)

    def say(self, message: str) -> None:
        _print(_console(), message)

    def begin(self, name: str) -> None:
        self.forecast.begin(name)
        is_due = time.monotonic() - self.last >= _SECONDS_OF_A_PART
        if is_due and self.forecast.part not in ("", self.part):
            self.part = self.forecast.part
            self.line("")

    def line(self, detail: str) -> None:
        self.last = time.monotonic()
        left = in_words(self.forecast.left())
        where = self.forecast.part or "working"
        print(f"{visible(where + detail)}, {left} left", file=sys.stderr, flush=True)


class _Live(_Forecasting):
    """Two bars: the job with the time left, and the step that it is at."""

    def __init__(self, forecast: Forecast, bars: Any) -> None:
        super().__init__(forecast)
        self.bars = bars
        self.whole = bars.add_task("starting", total=1.0, detail="")
        self.current = bars.add_task("", total=1, detail="", visible=False)

    @classmethod
    @contextmanager
    def opened(cls, forecast: Forecast) -> Iterator[_Live]:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        class Bars(Progress):
            def get_renderables(self) -> Iterator[Any]:
                # Time passes without a step's advancing.
                if len(self.tasks) > 1:
                    task = self._tasks[self.task_ids[0]]
                    task.completed = forecast.done()
                    task.fields["detail"] = f"{in_words(forecast.left())} left"
                yield from super().get_renderables()

        columns = (
            TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold", ratio=3)),
            BarColumn(bar_width=None, table_column=Column(ratio=2)),
            TextColumn("{task.fields[detail]}", markup=False, table_column=Column(no_wrap=True)),
        )
        with Bars(*columns, console=_console(), transient=True, refresh_per_second=4, expand=True) as bars:
            yield cls(forecast, bars)

    @contextmanager
    def step(self, description: str, total: int, unit: str) -> Iterator[Advance]:
        def show(done: int) -> None:
            self.bars.update(self.current, completed=done, detail=f"{done}/{total} {unit}".rstrip())

        self.bars.reset(
            self.current, description=visible(description), total=total, detail=f"0/{total} {unit}".rstrip()
        )
        self.bars.update(self.current, visible=True)
        yield self.counting(total, show)

    def say(self, message: str) -> None:
        _print(self.bars.console, message)

    def begin(self, name: str) -> None:
        self.forecast.begin(name)
        self.bars.update(self.whole, description=visible(self.forecast.part or "starting"))
        self.bars.update(self.current, description=visible(name), total=None, detail="", visible=True)


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def _print(console: Console, message: str) -> None:
    console.print(visible(message, lines=True), markup=False, soft_wrap=True)


@contextmanager
def _bar(description: str, total: int) -> Iterator[Advance]:
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
    with Progress(*columns, console=_console()) as bar:
        task = bar.add_task(description, total=total)
        yield lambda n: bar.advance(task, n)


@contextmanager
def _lines(description: str, total: int, unit: str) -> Iterator[Advance]:
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
