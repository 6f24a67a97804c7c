"""The comparisons of a run: which variants on which figures, adjusted within their families, and what they decide.

The intervention against base is a family of its own for each kind of question, the baselines against base are others,
and random draws of experts are in none: a test draw by draw describes two checkpoints. A gain is decided against no
difference and has to hold in the worst case for unscored answers; a cost is decided against its margin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.config import MarginsConfig
from harness.metrics.paired import Paired, adjust
from harness.runs.metric import Better, Metric
from harness.runs.metrics import metric_of
from harness.runs.rows import BASE, Comparison, Measurement, Unit, Verdict
from harness.runs.summary import draws_of

if TYPE_CHECKING:
    from harness.metrics.noninferiority import NonInferiority
    from harness.runs.evidence import Evidence

ALPHA = 0.05
"""The level of a family."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """One comparison before its family is known; `family` is None for what decides nothing."""

    row: Measurement
    against: str
    metric: Metric
    result: Paired
    unit: Unit
    family: str | None
    margin: float | None
    cost: NonInferiority | None


def comparisons(run: Evidence, figures: Sequence[Measurement]) -> list[Comparison]:
    """Test every variant against base, and the intervention against each random draw, on the same samples."""
    pairs = [
        pair
        for judge in dict.fromkeys(_judge(run, row) for row in figures)
        for pair in _pairs(run, figures, judge)
    ]
    families: dict[str | None, list[int]] = {}
    for place, pair in enumerate(pairs):
        families.setdefault(pair.family, []).append(place)
    adjusted: list[tuple[float | None, float | None]] = [(None, None)] * len(pairs)
    levels = [ALPHA] * len(pairs)
    for family, places in families.items():
        if family is None:
            continue
        tested = [pairs[place].result for place in places]
        p_values = [result.p_value for result in tested]
        both = zip(adjust(p_values), adjust([_p_worst_case(result) for result in tested]), strict=True)
        for place, p_adjusted in zip(places, both, strict=True):
            adjusted[place] = p_adjusted
            # Holm's first test, at which the smallest p-value is held.
            levels[place] = ALPHA / max(sum(p is not None for p in p_values), 1)
    return [
        _comparison(pair, *p_adjusted, level)
        for pair, p_adjusted, level in zip(pairs, adjusted, levels, strict=True)
    ]


def _pairs(run: Evidence, figures: Sequence[Measurement], judge: str) -> Iterator[_Pair]:
    """Yield the comparisons of the figures that belong to one judge's tests."""
    by_key = {(row.variant, row.task, row.metric, row.judge): row for row in figures}
    margins = MarginsConfig(**run.record.config.get("margins", {}))
    whose = "" if judge == run.primary else f", by {judge}"
    for name, against, subject in _compared(run):
        for row in figures:
            other = by_key.get((against, row.task, row.metric, row.judge))
            if row.variant != name or _judge(run, row) != judge or other is None:
                continue
            metric = metric_of(row.metric, row.kind)
            tested = metric.compare(run, row, other)
            if tested is None:
                continue
            tasks = "capability" if row.kind == "capability" else f"{row.kind} tasks"
            margin = None if subject is None else margins.of(row.task, row.kind)
            yield _Pair(
                row,
                against,
                metric,
                tested.result,
                tested.unit,
                None if subject is None else f"{tested.family}{subject} against base, {tasks}{whose}",
                margin,
                None if margin is None else metric.no_worse(run, row, other, margin),
            )


def _compared(run: Evidence) -> list[tuple[str, str, str | None]]:
    """Return the variants to compare, two and two, and whose family of tests it is."""
    done = [name for name, evaluated in run.record.evaluated.items() if evaluated.skipped is None]
    own = str(run.record.intervention)
    draws = draws_of(own, {name: run.variants[name] for name in done})
    subjects: Mapping[str, str | None] = {own: own, **dict.fromkeys(draws)}
    with_base = [(name, BASE, subjects.get(name, "baselines")) for name in done if name != BASE]
    return [*with_base, *((own, draw, None) for draw in draws)]


def _judge(run: Evidence, row: Measurement) -> str:
    """Return the judge whose tests a figure belongs to: the primary one if it needs no judge."""
    return row.judge or run.primary


def _difference(result: Paired) -> float | None:
    if result.difference is not None:
        return result.difference.value
    return None if result.variant is None or result.against is None else result.variant - result.against


def _p_worst_case(result: Paired) -> float | None:
    return result.p_value if result.worst_case is None else result.worst_case.p_value


def _comparison(
    pair: _Pair, p_adjusted: float | None, p_worst_case: float | None, level: float
) -> Comparison:
    row, result, cost = pair.row, pair.result, pair.cost
    ends, worst = result.difference, result.worst_case
    verdict = _verdict(pair, p_adjusted, p_worst_case)
    return Comparison(
        variant=row.variant,
        against=pair.against,
        task=row.task,
        metric=row.metric,
        judge=row.judge,
        value=result.variant,
        against_value=result.against,
        difference=_difference(result),
        low=None if ends is None else ends.low,
        high=None if ends is None else ends.high,
        p_value=result.p_value,
        p_adjusted=p_adjusted,
        family=pair.family,
        test=result.test,
        unit=pair.unit,
        n=result.n,
        clusters=result.groups,
        discordant=result.discordant,
        worst_case=None if worst is None else (worst.low, worst.high),
        p_worst_case=p_worst_case,
        minimum_detectable=result.minimum_detectable(level),
        margin=pair.margin,
        bound=None if cost is None else cost.bound,
        decided_on=None if cost is None else cost.n,
        needed=_needed(cost, level) if verdict == "not decided" else None,
        verdict=verdict,
    )


def _needed(cost: NonInferiority | None, level: float) -> int | None:
    """Return how many samples would decide a cost at the rates seen, either way."""
    if cost is None:
        return None
    return cost.needed_for_a_loss(level) if cost.needed is None else cost.needed


def _verdict(pair: _Pair, p_adjusted: float | None, p_worst_case: float | None) -> Verdict | None:
    """Return what a comparison decides; None for a draw, and where neither way is better or nothing was tested."""
    better, difference = pair.metric.better(pair.row), _difference(pair.result)
    if (
        pair.family is None
        or better is None
        or difference is None
        or p_adjusted is None
        or p_worst_case is None
    ):
        return None
    if pair.cost is not None and pair.cost.is_no_worse:
        return "no worse"
    is_shown = max(p_adjusted, p_worst_case) < ALPHA
    if is_shown and not _is_gain(better, difference):
        return "worse"
    return "better" if is_shown and pair.margin is None else "not decided"


def _is_gain(better: Better, difference: float) -> bool:
    return (difference > 0) == (better == "higher")
