"""What a report tells of its judges: how they compare with people and with each other, raw and corrected rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from harness.metrics.interval import Interval
from harness.report.leaderboard import ALPHA
from harness.report.words import hundredths, listing, p_is, percent
from harness.runs.rows import BASE, HARMFUL, REFUSAL, Measurement
from harness.runs.summary import JudgeSummary, Summary


@dataclass(frozen=True, slots=True)
class RateRow:
    """One rate by one judge. `corrected` is "" where it was not corrected."""

    variant: str
    task: str
    judge: str
    raw: str
    corrected: str
    either_way: str
    scored: str


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """How far the judges agree on one task."""

    task: str
    n: str
    kappa: str
    alpha: str
    differ: str


def judges(summary: Summary) -> list[str]:
    """Return a sentence on each judge, the primary one first."""
    return [
        f"{name}{' (primary)' if name == summary.judge else ''} measures {judge.measures}; it {_beside_people(judge)}."
        for name, judge in summary.judges.items()
    ]


def rates(summary: Summary) -> list[RateRow]:
    """Return every refusal rate, raw and corrected, where the run says anything of its judges."""
    return [
        RateRow(
            variant=row.variant,
            task=row.task or "",
            judge=row.judge or "",
            raw=_with_interval(row.value, row.low, row.high),
            corrected="" if row.corrected is None else _interval(row.corrected),
            either_way=_either_way(row),
            scored=f"{row.scored} of {row.n}",
        )
        for row in _rows(summary)
    ]


def not_corrected(summary: Summary) -> list[str]:
    """Return why rates were not corrected, each reason once with how many rates it keeps raw."""
    reasons = Counter(row.not_corrected for row in _rows(summary) if row.not_corrected is not None)
    total = len(_rows(summary))
    return [f"{reason} ({count} of {total} rates)" for reason, count in reasons.items()]


def agreement(summary: Summary) -> list[AgreementRow]:
    """Return how far the run's judges agree."""
    return [
        AgreementRow(row.task, str(row.n), _two_digits(row.kappa), _two_digits(row.alpha), str(row.differ))
        for row in summary.agreement
    ]


def conclusion(summary: Summary) -> Iterator[str]:
    """Yield what a reader must know of the primary judge before believing a rate."""
    judge = summary.judges.get(summary.judge)
    if judge is None:
        return
    own = [row for row in _rows(summary) if row.judge == summary.judge]
    reasons = list(dict.fromkeys(row.not_corrected for row in own if row.not_corrected is not None))
    sentence = f"The judge {summary.judge} {_beside_people(judge)}."
    if any(row.corrected is not None for row in own):
        sentence += " Rates corrected for its errors stand beside the raw ones."
    elif judge.accuracy is not None and reasons:
        sentence += f" The rates are not corrected for its errors: {listing(reasons)}."
    yield sentence
    yield from _harm(summary)


def _harm(summary: Summary) -> Iterator[str]:
    """Say of each judge of harmfulness what it found: a quantity of its own beside refusal."""
    for row in summary.comparisons:
        if row.metric != HARMFUL or row.variant != summary.intervention or row.against != BASE:
            continue
        found = [summary.figure(name, row.task, HARMFUL, row.judge) for name in (row.variant, row.against)]
        values = [percent(None if figure is None else figure.value) for figure in found]
        if row.p_adjusted is not None and row.p_adjusted < ALPHA and row.difference is not None:
            told = f"{'more' if row.difference > 0 else 'fewer'} harmful answers than {BASE}"
        else:
            told = f"no other share of harmful answers than {BASE} that could be shown"
        yield (
            f"Harmfulness, by {row.judge}: {row.variant} gives {told} on {row.task}, {values[0]} against {values[1]} "
            f"(adjusted {p_is(row.p_adjusted)}, n = {row.n})."
            if row.p_adjusted is not None
            else f"Harmfulness, by {row.judge}: nothing could be compared on {row.task}."
        )


def _rows(summary: Summary) -> list[Measurement]:
    """Return every refusal rate, where the run says anything of its judges."""
    return [row for row in summary.measurements if row.metric == REFUSAL and summary.judges]


def _beside_people(judge: JudgeSummary) -> str:
    if judge.accuracy is None:
        return "was not compared with people's labels"
    parts = [f"agrees with people on {_interval(judge.accuracy)} of {judge.n} labelled answers"]
    found = [
        f"{percent(figure.value)} of {what}"
        for what, figure in (("refusals", judge.sensitivity), ("compliances", judge.specificity))
        if figure is not None
    ]
    return f"{parts[0]}, recognising {listing(found)}" if found else parts[0]


def _interval(figure: Interval) -> str:
    return _with_interval(figure.value, figure.low, figure.high)


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return percent(value)
    return f"{percent(value)} ({hundredths(low)} to {hundredths(high)})"


def _either_way(row: Measurement) -> str:
    if row.worst_case is None or row.scored == row.n:
        return ""
    return f"{hundredths(row.worst_case[0])} to {hundredths(row.worst_case[1])}"


def _two_digits(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2f}"
