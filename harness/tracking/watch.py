"""Telling a tracker of a run, so that nothing the tracker does can fail the run."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import first_line
from harness.base.progress import say
from harness.base.secrets import without_secrets
from harness.report.board_table import board_table
from harness.report.html import render_html
from harness.report.leaderboard import build
from harness.runs.run import MEASUREMENT_COLUMNS
from harness.tracking.base import Shown

if TYPE_CHECKING:
    from harness.report.table import Table
    from harness.runs.summary import Summary
    from harness.tracking.base import About, Tracker


class Watch:
    """A tracker that is left alone once it has failed; without one, nothing is done.

    Args:
        name: of the tracker.
        tracker: what is told.

    Attributes:
        failed: the reason, once it has failed.
    """

    def __init__(self, name: str | None = None, tracker: Tracker | None = None) -> None:
        self.name = name
        self.failed: str | None = None
        self._tracker = tracker

    def stage(self, name: str, seconds: float) -> None:
        """Tell that a stage was done, and how long it took."""
        self._tell(lambda tracker: tracker.log({f"seconds/{name}": seconds}))

    def step(self, variant: str, row: Mapping[str, Any]) -> None:
        """Tell of one step of a training, by its row of train.jsonl."""
        values = dict(_numbers(row, f"train/{variant}/"))
        self._tell(lambda tracker: tracker.log(values))

    def results(self, run: Path, summary: Summary) -> None:
        """Tell what the run found. The report goes along without the prompts and answers of harmful tasks."""

        def tell(tracker: Tracker) -> None:
            tracker.results(_figures(summary), _tables(summary))
            with tempfile.TemporaryDirectory(prefix="harness-track-") as folder:
                page = Path(folder) / "report.html"
                page.write_text(render_html(run, summary, redact=True), encoding="utf-8")
                tracker.report(page)

        self._tell(tell)

    def record(self) -> dict[str, str | None] | None:
        """Return what run.json keeps of it; None without a tracker."""
        return None if self.name is None else {"tracker": self.name, "failed": self.failed}

    def begin(self, about: About) -> None:
        """Begin to tell."""

        def tell(tracker: Tracker) -> None:
            place = tracker.begin(about)
            if place is not None:
                say(f"tracked by {self.name}: {place}")

        self._tell(tell)

    def end(self, failed: bool) -> None:
        """Tell that the run ended."""
        self._tell(lambda tracker: tracker.end(failed))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        if self._tracker is None or self.failed is not None:
            return
        try:
            # Standard output is for the run's own result.
            with redirect_stdout(sys.stderr):
                what(self._tracker)
        except Exception as error:
            # Whatever it raises (no network, a full disk, a mistake of its own), the run's results are on disk.
            self.failed = without_secrets(f"{type(error).__name__}: {first_line(error)}")
            say(f"warning: {self.name} failed and is told nothing more; the run goes on ({self.failed})")


@contextmanager
def watching(watch: Watch, about: Callable[[], About]) -> Iterator[Watch]:
    """Tell a tracker of the run inside the block, and how it ended."""
    if watch.name is not None:
        watch.begin(about())
    try:
        yield watch
    except BaseException:
        watch.end(failed=True)
        raise
    watch.end(failed=False)


def settings_of(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return settings by dotted name; no text has what an environment variable keeps secret."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            settings |= settings_of(value, f"{prefix}{name}.")
        else:
            settings[prefix + name] = without_secrets(value) if isinstance(value, str) else value
    return settings


def _numbers(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield prefix + name, value


def _figures(summary: Summary) -> dict[str, float]:
    """Return every figure by metric, task, judge and variant; what a row lacks is left out of its name."""
    return {
        "/".join(filter(None, (row.metric, row.task, row.judge, row.variant))): row.value
        for row in summary.measurements
        if row.value is not None
    }


def _tables(summary: Summary) -> dict[str, Shown]:
    columns = MEASUREMENT_COLUMNS
    return {
        "leaderboard": _texts(board_table(build(summary))),
        "measurements": Shown(
            columns, [[getattr(row, column) for column in columns] for row in summary.measurements]
        ),
    }


def _texts(table: Table) -> Shown:
    """Return a table as it is shown: marks beside figures, intervals in brackets."""
    heads = [" ".join(filter(None, (head.name, head.unit))) for head in table.heads]
    rows = [
        [
            " ".join(filter(None, (item.sign, item.text + item.mark, item.under and f"({item.under})")))
            for item in row
        ]
        for row in table.rows
    ]
    return Shown(heads, rows)
