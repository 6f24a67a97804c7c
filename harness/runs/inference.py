"""Which variants are compared on which figures, and what the tests say of them together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from harness.metrics.paired import adjust
from harness.runs.metric import metric_of
from harness.runs.rows import BASE, Comparison, Measurement

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


def comparisons(run: Evidence, figures: Sequence[Measurement]) -> list[Comparison]:
    """Test every variant against base, and the intervention against each random draw, on the same samples.

    Each judge's tests are families of their own, adjusted by Holm's method.
    """
    by_variant: dict[str, list[Measurement]] = {}
    for row in figures:
        by_variant.setdefault(row.variant, []).append(row)
    pairs = _pairs(run)
    rows = [
        row
        for judge in dict.fromkeys(_judge(run, row) for row in figures)
        for name, against in pairs
        for row in _compare(run, judge, by_variant.get(name, []), by_variant.get(against, []))
    ]
    return _adjusted(rows)


def _pairs(run: Evidence) -> list[tuple[str, str]]:
    done = [name for name, evaluated in run.evaluated.items() if evaluated.skipped is None]
    pairs = [(name, BASE) for name in done if name != BASE]
    own = run.record.intervention
    if own in done:
        kind = run.variants[own].get("intervention")
        pairs += [
            (own, name)
            for name in done
            if name != own
            and run.variants[name].get("draw") is not None
            and run.variants[name].get("intervention") == kind
        ]
    return pairs


def _judge(run: Evidence, row: Measurement) -> str:
    """Return whose tests a figure belongs to; what needs no judge goes with the primary judge's."""
    return row.judge or run.primary


def _compare(
    run: Evidence, judge: str, mine: Sequence[Measurement], theirs: Sequence[Measurement]
) -> Iterator[Comparison]:
    others = {(row.task, row.metric, row.judge): row for row in theirs}
    for row in mine:
        other = others.get((row.task, row.metric, row.judge))
        if other is None or _judge(run, row) != judge:
            continue
        tested = metric_of(row.metric, row.kind).compare(run, row, other)
        if tested is None:
            continue
        against = "against base" if other.variant == BASE else "against random experts"
        tasks = "capability" if row.kind == "capability" else f"{row.kind} tasks"
        whose = "" if judge == run.primary else f", by {judge}"
        yield Comparison(
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


def _adjusted(rows: Sequence[Comparison]) -> list[Comparison]:
    found = list(rows)
    families: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        families.setdefault(row.family, []).append(place)
    for places in families.values():
        for place, p_value in zip(places, adjust([rows[i].p_value for i in places]), strict=True):
            found[place] = rows[place].model_copy(update={"p_adjusted": p_value})
    return found
