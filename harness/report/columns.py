"""The columns of leaderboards, and a variant's figure in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.report.words import hundredths, number
from harness.runs.inference import ALPHA
from harness.runs.metric import Better
from harness.runs.metrics import metric_of
from harness.runs.rows import BASE, HARMFUL, Comparison, Kind, Measurement
from harness.runs.summary import Summary

KINDS: tuple[Kind, ...] = ("harmful", "benign", "capability", "text")
# The heading of a figure over all tasks.
_OVER_ALL = "all tasks"
Effect = Literal["higher", "lower", "undecided", "untested"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        asked: its task in summary.json, None where the figure is over all tasks.
        kind: of the task.
        metric: of all its figures.
        judge: of all its figures.
        is_share: whether figures are shares of 1.
        better: which way is better; None where neither is, or runs disagree.
        is_testable: whether variants are tested on it; other figures are only shown, and decide nothing.
    """

    asked: str | None
    kind: Kind
    metric: str
    judge: str | None
    is_share: bool
    better: Better | None
    is_testable: bool

    @property
    def task(self) -> str:
        """The task as a heading names it."""
        return self.asked or _OVER_ALL

    @property
    def decides(self) -> bool:
        """Whether the best variant and the conclusion rest on it."""
        return metric_of(self.metric, self.kind).decides

    @property
    def measure(self) -> str:
        """The figure with its unit and the direction that is better."""
        return f"{self.name} {self.unit}".rstrip()

    @property
    def name(self) -> str:
        """The figure, with its judge unless that is the primary one."""
        label = metric_of(self.metric, self.kind).label(self.kind)
        return (
            label if _by_primary(self.metric, self.kind) or self.judge is None else f"{label} by {self.judge}"
        )

    @property
    def unit(self) -> str:
        """The figure's unit and the direction that is better."""
        arrow = {"higher": "↑", "lower": "↓", None: ""}[self.better]
        return f"{'% ' if self.is_share else ''}{arrow}".rstrip()

    def is_better(self, effect: Effect) -> bool | None:
        """Whether an effect is for the better; None where no test shows one, or neither way is better."""
        return effect == self.better if effect in ("higher", "lower") and self.better else None

    def show(self, figure: float) -> str:
        """Return a figure of this column in its unit."""
        return hundredths(figure) if self.is_share else number(figure)


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure. `value` is None where the variant has none; `n` is how many samples it counts."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    effect: Effect
    is_better: bool | None

    @property
    def mark(self) -> str:
        """A sign for a significant difference from base."""
        return {"higher": "▲", "lower": "▼"}.get(self.effect, "")


def columns_of(summaries: Sequence[Summary]) -> tuple[Column, ...]:
    """Return one column per task and metric that any variant of any run was measured on."""
    rows_of: dict[tuple[str | None, Kind, str, str | None], list[Measurement]] = {}
    for summary in summaries:
        for row in summary.measurements:
            if is_column(row, summary):
                rows_of.setdefault((row.task, row.kind, row.metric, row.judge), []).append(row)
    return tuple(_column(rows) for group in KINDS for (_, kind, *_), rows in rows_of.items() if kind == group)


def _column(rows: Sequence[Measurement]) -> Column:
    first = rows[0]
    metric = metric_of(first.metric, first.kind)
    directions = {metric.better(row) for row in rows}
    return Column(
        first.task,
        first.kind,
        first.metric,
        first.judge,
        are_shares(rows),
        directions.pop() if len(directions) == 1 else None,
        all(metric.is_testable(row) for row in rows),
    )


def gain_columns(summary: Summary, columns: Sequence[Column]) -> list[Column]:
    """Return those of the columns that gains rest on: harmful answers or refusals, on harmful tasks."""
    return (_harmful if summary.gain_metric == HARMFUL else _refused)(summary, columns)


def other_columns(summary: Summary, columns: Sequence[Column]) -> list[Column]:
    """Return those of the other quantity, which decides no gain, by its primary judge."""
    return (_refused if summary.gain_metric == HARMFUL else _harmful)(summary, columns)


def _harmful(summary: Summary, columns: Sequence[Column]) -> list[Column]:
    primary = summary.primary_of("harmfulness")
    return [
        column
        for column in columns
        if (column.metric, column.judge) == (HARMFUL, primary) and column.is_testable
    ]


def _refused(summary: Summary, columns: Sequence[Column]) -> list[Column]:
    return [
        column for column in columns if column.kind == "harmful" and column.decides and column.is_testable
    ]


def deciding_columns(summary: Summary) -> tuple[Column, ...]:
    """Return the columns that the best variant and the conclusion rest on, beside the harmful answers."""
    return tuple(column for column in columns_of([summary]) if column.decides and column.is_testable)


def is_column(row: Measurement, summary: Summary) -> bool:
    """Whether a figure is one of the leaderboard: of those that decide, only by the primary judge."""
    is_shown = metric_of(row.metric, row.kind).on_leaderboard
    return is_shown and (not _by_primary(row.metric, row.kind) or row.judge in (None, summary.judge))


def _by_primary(name: str, kind: Kind) -> bool:
    metric = metric_of(name, kind)
    return metric.decides or metric.by_primary


def are_shares(rows: Sequence[Measurement]) -> bool:
    """Whether figures of one metric are shares of 1; where nothing says so, all must be between 0 and 1."""
    units = {metric_of(row.metric, row.kind).unit or row.unit for row in rows} or {"share"}
    if None not in units:
        return units == {"share"}
    return all(0 <= figure <= 1 for row in rows for figure in (row.value, row.high) if figure is not None)


def cells_of(summary: Summary, variant: str, columns: Sequence[Column]) -> tuple[Cell, ...]:
    """Return one variant's figures."""
    figures = {(row.task, row.metric, row.judge): row for row in summary.of(variant)}
    return tuple(
        _cell(summary, variant, column, figures.get((column.asked, column.metric, column.judge)))
        for column in columns
    )


def comparison(summary: Summary, variant: str, against: str, column: Column) -> Comparison | None:
    """Return the test of two variants on the column's figure."""
    wanted = (variant, against, column.asked, column.metric, column.judge)
    for row in summary.comparisons:
        if (row.variant, row.against, row.task, row.metric, row.judge) == wanted:
            return row
    return None


def effect_of(test: Comparison | None) -> Effect:
    """Return what a test says: adjusted p-values below `ALPHA` decide, also in the worst case for unscored answers."""
    if test is None or test.p_adjusted is None or test.difference is None:
        return "untested"
    # Summaries that earlier versions wrote have no worst case.
    worst = test.p_adjusted if test.p_worst_case is None else test.p_worst_case
    if max(test.p_adjusted, worst) >= ALPHA:
        return "undecided"
    return "higher" if test.difference > 0 else "lower"


def value_of(summary: Summary, variant: str, column: Column) -> float | None:
    """Return one variant's figure, None where it has none."""
    row = summary.figure(variant, column.asked, column.metric, column.judge)
    return None if row is None else row.value


def _cell(summary: Summary, variant: str, column: Column, result: Measurement | None) -> Cell:
    is_draw = summary.variants[variant].is_draw
    # Earlier versions tested draws as they tested other variants.
    effect: Effect = "untested" if is_draw else effect_of(comparison(summary, variant, BASE, column))
    if result is None:
        return Cell(None, None, None, 0, "untested", None)
    return Cell(result.value, result.low, result.high, result.scored, effect, column.is_better(effect))
