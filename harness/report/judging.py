"""The judges of a run: how they compare with people and with each other, raw and corrected rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.metrics.interval import Interval
from harness.report.words import interval, listing, p_is, percent
from harness.runs.metrics import metric_of
from harness.runs.rows import BASE, HARMFUL, REFUSAL, Measurement
from harness.runs.summary import JudgeSummary, OwnLabels, Summary

_NAMES = {REFUSAL: "refusal", HARMFUL: "harmful"}
_MOST_PARTS = 3
_MOST_DIFFERENCES = 50
# Errors of a judge that differ by chance alone this rarely are said to differ.
_ALPHA = 0.05


def judges(summary: Summary) -> list[str]:
    """Return a sentence on each judge, the primary one first, and on people's labels of the run's own answers."""
    sentences = []
    for name, judge in summary.judges.items():
        primary = " (primary)" if name == summary.primary_of(judge.measures) else ""
        sentences.append(f"{name}{primary} measures {judge.measures}; it {beside_people(judge)}.")
        if judge.uneven:
            sentences.append(f"On some of them {name} errs more: {uneven(judge)}.")
        if judge.own is not None:
            sentences.append(_on_own_answers(name, judge.own))
    return sentences


def _on_own_answers(name: str, own: OwnLabels) -> str:
    """Return how a judge does on the run's own answers, and whether that differs between variants and tasks."""
    labelled = f"{own.n} answer{'s' if own.n > 1 else ''} of this run {'are' if own.n > 1 else 'is'} labelled"
    ranges = [
        f"{what} {percent(min(values))}" + (f" to {percent(max(values))}" if len(values) > 1 else "")
        for what in ("sensitivity", "specificity")
        if (values := [value for part in own.parts if (value := getattr(part, what)) is not None])
    ]
    if not ranges:
        return f"{labelled}; no rate could be corrected by them."
    shown = f"{labelled}: by them, {name} has {listing(ranges)}"
    if own.errors_differ is None:
        return f"{shown}."
    differ = "differ" if own.errors_differ < _ALPHA else "are not shown to differ"
    return f"{shown} by variant and task. Its errors {differ} between them ({p_is(own.errors_differ)})."


def rates(summary: Summary) -> list[dict[str, str]]:
    """Return a table of the judged rates, raw and corrected; empty where the run describes no judge."""
    found = _rows(summary)
    has_harm = any(row.metric == HARMFUL for row in found)
    return [
        {
            "variant": row.variant,
            "task": row.task or "",
            **({"rate": _NAMES[row.metric]} if has_harm else {}),
            "judge": row.judge or "",
            "raw": estimate(row),
            "corrected": estimate(row.corrected) if row.corrected else "",
            "unscored either way": interval(*row.worst_case) if row.worst_case and row.scored < row.n else "",
            "scored": f"{row.scored} of {row.n}",
        }
        for row in found
    ]


def not_corrected(summary: Summary) -> list[str]:
    """Return why rates were not corrected, each reason once with how many rates it keeps raw."""
    rows = _rows(summary)
    reasons = Counter(row.not_corrected for row in rows if row.not_corrected is not None)
    return [f"{reason} ({count} of {len(rows)} rates)" for reason, count in reasons.items()]


class Disputed(NamedTuple):
    """A comparison of the intervention with base that judges of one quantity decide differently.

    Attributes:
        what: the figure.
        task: what was asked.
        verdicts: what each judge's verdicts decide.
    """

    what: str
    task: str
    verdicts: dict[str, str]


def disputed(summary: Summary) -> list[Disputed]:
    """Return the comparisons of the intervention with base whose outcome depends on the judge."""
    return [each for each in _by_judges(summary) if len(set(each.verdicts.values())) > 1]


def undisputed(summary: Summary) -> list[str]:
    """Return the judges of one quantity that decide every such comparison alike; none where any is disputed."""
    compared = _by_judges(summary)
    if any(len(set(each.verdicts.values())) > 1 for each in compared):
        return []
    return list(dict.fromkeys(judge for each in compared for judge in each.verdicts))


def _by_judges(summary: Summary) -> list[Disputed]:
    """Return the comparisons of the intervention with base that several judges' verdicts decide."""
    if summary.lacks_verdicts:
        return []
    kinds = {(row.task, row.metric): row.kind for row in summary.measurements}
    found: dict[tuple[str | None, str], dict[str, str]] = {}
    for test in summary.comparisons:
        is_own = (test.variant, test.against) == (summary.intervention, BASE)
        if is_own and test.metric in _NAMES and test.judge in summary.judges:
            found.setdefault((test.task, test.metric), {})[str(test.judge)] = test.verdict or "not tested"
    return [
        Disputed(metric_of(metric, kinds[task, metric]).label(kinds[task, metric]), str(task), verdicts)
        for (task, metric), verdicts in found.items()
        if len(verdicts) > 1
    ]


def agreement(summary: Summary) -> list[dict[str, str]]:
    """Return a table of how far the judges agree on each task."""
    return [
        {
            "task": row.task,
            **({"of": row.quantity} if any(each.quantity != "refusal" for each in summary.agreement) else {}),
            "answers": str(row.n),
            "Cohen's kappa": "" if row.kappa is None else f"{row.kappa:.2f}",
            "Krippendorff's alpha": "" if row.alpha is None else f"{row.alpha:.2f}",
            "differ": str(row.differ),
        }
        for row in summary.agreement
    ]


def differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a table of the answers on which judges of a quantity differ.

    Args:
        rows: of judges/differences.jsonl, of which the first few are shown.
    """
    judges = dict.fromkeys(judge for row in rows for judge in row["labels"])
    return [
        {"variant": row["variant"], "task": row["task"], "answer": row["id"]}
        | {judge: (row["labels"][judge] or "unscored") if judge in row["labels"] else "" for judge in judges}
        for row in rows[:_MOST_DIFFERENCES]
    ]


def _rows(summary: Summary) -> list[Measurement]:
    """Return every rate of refusal and of harmful answers, where the run says anything of its judges."""
    return [row for row in summary.measurements if row.metric in _NAMES and summary.judges]


def deciding(summary: Summary) -> list[str]:
    """Return the judges whose verdicts decide: that of what gains rest on, then that of refusal."""
    first = summary.judge if summary.gain is None else summary.gain.judge
    return list(dict.fromkeys([first, summary.judge]))


def rates_of(summary: Summary, judge: str) -> list[Measurement]:
    """Return a judge's rates of refusal, or of harmful answers."""
    return [row for row in summary.measurements if row.judge == judge and row.metric in _NAMES]


def deciding_in_words(summary: Summary) -> str:
    """Return "judge a", or "judges a and b"."""
    judges = deciding(summary)
    return f"judge{'s' if len(judges) > 1 else ''} {listing(judges)}"


class BesideLabels(NamedTuple):
    """A judge beside people's labels.

    Attributes:
        name: of the judge.
        beside_people: how it compares with people.
        is_corrected: whether labels of the run's own answers correct its rates.
        reasons: why they do not, where the judge's errors are known.
    """

    name: str
    beside_people: str
    is_corrected: bool
    reasons: list[str]


def beside_labels(summary: Summary, name: str) -> BesideLabels:
    """Return what is said of a judge of the run."""
    judge, found = summary.judges[name], rates_of(summary, name)
    reasons = dict.fromkeys(row.not_corrected for row in found if row.not_corrected)
    is_corrected = any(row.corrected for row in found)
    return BesideLabels(name, beside_people(judge), is_corrected, list(reasons) if judge.accuracy else [])


def beside_people(judge: JudgeSummary) -> str:
    """Return how often a judge agrees with people's labels, as the end of a sentence."""
    of_harm = judge.measures == "harmfulness"
    # The unit of the interval.
    prompts = "" if judge.clusters is None else f" to {judge.clusters} prompts"
    if judge.accuracy is None:
        if judge.precision is None:
            return "was not compared with people's labels"
        return (
            f"is right on {estimate(judge.precision)} of {judge.n} labelled answers{prompts} that it calls "
            f"{'harmful' if of_harm else 'refusals'}; no others were labelled, so what it misses is not known"
        )
    names = ("harmful answers", "harmless ones") if of_harm else ("refusals", "compliances")
    recognised = [
        f"{percent(figure.value)} of {what}"
        for what, figure in zip(names, (judge.sensitivity, judge.specificity), strict=True)
        if figure is not None
    ]
    rest = f", recognising {listing(recognised)}" if recognised else ""
    return f"agrees with people on {estimate(judge.accuracy)} of {judge.n} labelled answers{prompts}{rest}"


def uneven(judge: JudgeSummary) -> str:
    """Return the parts of the labelled answers on which a judge errs more than on the rest."""
    parts = [
        f"{each.part} ({each.figure} {percent(each.inside)}, elsewhere {percent(each.outside)}, n = {each.n})"
        for each in judge.uneven
    ]
    more = len(parts) - _MOST_PARTS
    return listing(parts) if more < 1 else f"{', '.join(parts[:_MOST_PARTS])} and {more} more (summary.json)"


def estimate(figure: Interval | Measurement) -> str:
    """Return a share with its interval, where it has one."""
    ends = interval(figure.low, figure.high)
    return percent(figure.value) + (f" ({ends})" if ends else "")
