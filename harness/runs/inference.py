"""The comparisons of a run: which variants on which figures, adjusted within their families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.metrics.paired import adjust
from harness.runs.metrics import metric_of
from harness.runs.rows import BASE, Comparison, Measurement
from harness.runs.summary import draws_of

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


def comparisons(run: Evidence, figures: Sequence[Measurement]) -> list[Comparison]:
    """Test every variant against base, and the intervention against each random draw, on the same samples.

    Each judge's tests are families of their own, adjusted by Holm's method.
    """
    by_key = {(row.variant, row.task, row.metric, row.judge): row for row in figures}
    pairs = _pairs(run)
    rows = [
        comparison
        for judge in dict.fromkeys(_judge(run, row) for row in figures)
        for name, against in pairs
        for row in figures
        if row.variant == name
        and _judge(run, row) == judge
        and (other := by_key.get((against, row.task, row.metric, row.judge))) is not None
        and (comparison := _compare(run, row, other)) is not None
    ]
    adjusted = {
        family: iter(adjust([row.p_value for row in rows if row.family == family]))
        for family in dict.fromkeys(row.family for row in rows)
    }
    return [row.model_copy(update={"p_adjusted": next(adjusted[row.family])}) for row in rows]


def _pairs(run: Evidence) -> list[tuple[str, str]]:
    done = [name for name, evaluated in run.record.evaluated.items() if evaluated.skipped is None]
    own = str(run.record.intervention)
    draws = draws_of(own, {name: run.variants[name] for name in done})
    return [*((name, BASE) for name in done if name != BASE), *((own, draw) for draw in draws)]


def _judge(run: Evidence, row: Measurement) -> str:
    """Return the judge whose tests a figure belongs to: the primary one if it needs no judge."""
    return row.judge or run.primary


def _compare(run: Evidence, row: Measurement, other: Measurement) -> Comparison | None:
    tested = metric_of(row.metric, row.kind).compare(run, row, other)
    if tested is None:
        return None
    judge = _judge(run, row)
    against = "against base" if other.variant == BASE else "against random experts"
    tasks = "capability" if row.kind == "capability" else f"{row.kind} tasks"
    whose = "" if judge == run.primary else f", by {judge}"
    return Comparison(
        variant=row.variant,
        against=other.variant,
        task=row.task,
        metric=row.metric,
        judge=row.judge,
        **tested.result._asdict(),
        p_adjusted=None,
        family=f"{tested.family}{against}, {tasks}{whose}",
        unit=tested.unit,
        clustered=tested.clustered,
    )
