"""The judges of a run: how they compare with people and with each other, raw and corrected rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.metrics.interval import Interval
from harness.report.leaderboard import ALPHA
from harness.report.words import interval, listing, p_is, percent
from harness.runs.rows import BASE, HARMFUL, REFUSAL, Measurement
from harness.runs.summary import JudgeSummary, Summary


def judges(summary: Summary) -> list[str]:
    """Return a sentence on each judge, the primary one first."""
    return [
        f"{name}{' (primary)' if name == summary.judge else ''} measures {judge.measures}; it {_beside_people(judge)}."
        for name, judge in summary.judges.items()
    ]


def rates(summary: Summary) -> list[dict[str, str]]:
    """Return a table of refusal rates, raw and corrected; empty where the run describes no judge."""
    return [
        {
            "variant": row.variant,
            "task": row.task or "",
            "judge": row.judge or "",
            "raw": estimate(row),
            "corrected": estimate(row.corrected) if row.corrected else "",
            "unscored either way": interval(*row.worst_case) if row.worst_case and row.scored < row.n else "",
            "scored": f"{row.scored} of {row.n}",
        }
        for row in _rows(summary)
    ]


def not_corrected(summary: Summary) -> list[str]:
    """Return why rates were not corrected, each reason once with how many rates it keeps raw."""
    rows = _rows(summary)
    reasons = Counter(row.not_corrected for row in rows if row.not_corrected is not None)
    return [f"{reason} ({count} of {len(rows)} rates)" for reason, count in reasons.items()]


def agreement(summary: Summary) -> list[dict[str, str]]:
    """Return a table of how far the judges agree on each task."""
    return [
        {
            "task": row.task,
            "answers": str(row.n),
            "Cohen's kappa": "" if row.kappa is None else f"{row.kappa:.2f}",
            "Krippendorff's alpha": "" if row.alpha is None else f"{row.alpha:.2f}",
            "differ": str(row.differ),
        }
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
    parts = [f"agrees with people on {estimate(judge.accuracy)} of {judge.n} labelled answers"]
    found = [
        f"{percent(figure.value)} of {what}"
        for what, figure in (("refusals", judge.sensitivity), ("compliances", judge.specificity))
        if figure is not None
    ]
    return f"{parts[0]}, recognising {listing(found)}" if found else parts[0]


def estimate(figure: Interval | Measurement) -> str:
    """Return a share with its interval, where it has one."""
    ends = interval(figure.low, figure.high)
    return percent(figure.value) + (f" ({ends})" if ends else "")
