"""What a run shows, in sentences that hold also when nothing works; reports/conclusion.txt.j2 words them.

Only adjusted p-values decide: overlapping intervals are never read as a test. A comparison of two variants
speaks of two checkpoints; with 5 random draws or more the spread between draws is described too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from harness.metrics.paired import is_no_worse
from harness.report import judging, leaderboard
from harness.report.chosen import chosen_experts
from harness.report.leaderboard import Column, Effect, comparison, effect_of, value_of
from harness.report.page import environment
from harness.report.similarity import near_and_far
from harness.report.words import interval, listing, p_is, signed, visible
from harness.runs.rows import BASE, HARMFUL, REFUSAL, Measurement
from harness.runs.summary import Summary

ENOUGH_DRAWS = 5
_VERBATIM = "refusal_verbatim_trained"
# A loss of capability that would not matter.
_MARGIN = 0.01
_FEW = 3
_NOTABLE_TRUNCATED = 0.1
_NOTABLE_REPEATS = 0.5


@dataclass(frozen=True, slots=True)
class _Test:
    """The intervention against another variant on one column, its figures as text.

    `is_no_worse` says whether a loss of more than `_MARGIN` is ruled out, where the figure is a share of right answers.
    """

    column: Column
    against: str
    effect: Effect
    own: str
    other: str
    difference: str = ""
    p: str = ""
    n: int = 0
    detectable: str = ""
    is_no_worse: bool | None = None


@dataclass(frozen=True, slots=True)
class _Draws:
    """The intervention against random draws of experts on one column."""

    column: Column
    tests: Sequence[_Test]
    own: float | None
    rates: Sequence[float]

    @property
    def are_enough(self) -> bool:
        return len(self.rates) >= ENOUGH_DRAWS

    @property
    def median(self) -> float:
        return median(self.rates)

    def count(self, effect: Effect) -> int:
        return sum(test.effect == effect for test in self.tests)


def conclude(summary: Summary) -> list[str]:
    """Return the conclusion, one sentence per item, the most important first."""
    name = summary.intervention
    variant = summary.variants.get(name)
    columns = leaderboard.columns_of([summary])
    deciding = [column for column in columns if column.decides]
    compared = deciding if variant and variant.skipped is None and name != BASE else []
    harmful = [column for column in compared if column.kind == "harmful"]
    rates = [row for row in summary.measurements if (row.metric, row.judge) == (REFUSAL, summary.judge)]
    often_truncated = [row for row in rates if row.n and (row.truncated or 0) / row.n >= _NOTABLE_TRUNCATED]
    judge = summary.judges.get(summary.judge)
    words = environment(
        autoescape=False,
        trim_blocks=False,  # a sentence may end in a block, and is a line even so
        finalize=lambda content: visible(content) if isinstance(content, str) else content,
    )
    words.filters |= {"listing": listing, "signed": signed}
    text = words.get_template("conclusion.txt.j2").render(
        summary=summary,
        interval=interval,
        name=name,
        base=BASE,
        harmful=[_test(summary, column, BASE) for column in harmful],
        draws=[_draws(summary, column) for column in harmful],
        enough_draws=ENOUGH_DRAWS,
        costs=[_test(summary, column, BASE) for column in compared if column.kind != "harmful"],
        chosen=chosen_experts(summary),
        best=leaderboard.best_variant(summary),
        held=[each for each, made in summary.variants.items() if made.frozen_unchanged],
        repeated=_repeated_phrasings(summary, deciding),
        by_similarity=near_and_far(summary),
        unscored=_counts([row for row in rates if row.unscored], "unscored"),
        truncated=_counts(often_truncated, "truncated"),
        clustered=list(_near_duplicates(summary, deciding)),
        beside_people=judging.beside_people(judge) if judge else "",
        is_corrected=any(row.corrected for row in rates),
        reasons=list(dict.fromkeys(row.not_corrected for row in rates if row.not_corrected)),
        harmfulness=[
            _test(summary, column, BASE)
            for column in columns
            if column.metric == HARMFUL and comparison(summary, name, BASE, column)
        ],
    )
    return [line for line in text.split("\n") if line.strip()]


def _test(summary: Summary, column: Column, against: str) -> _Test:
    test = comparison(summary, summary.intervention, against, column)
    own, other = (
        column.show(value) + ("%" if column.is_share else "") if value is not None else "no value"
        for value in (value_of(summary, variant, column) for variant in (summary.intervention, against))
    )
    if test is None or test.difference is None or test.p_adjusted is None:
        return _Test(column, against, "untested", own, other)
    show: Callable[[float], str] = signed if column.is_share else "{:+.4g}".format
    unit = " points" if column.is_share else ""
    ends = interval(test.low, test.high, show)
    least = test.minimum_detectable
    is_right_answers = column.kind == "capability" and column.is_share and column.better == "higher"
    return _Test(
        column,
        against,
        effect_of(test),
        own,
        other,
        difference=f"{show(test.difference)}{unit}{f', 95% interval {ends}' if ends else ''}",
        p=f"adjusted {p_is(test.p_adjusted)}",
        n=test.n,
        detectable="" if least is None else f"{column.show(least)}{unit}",
        is_no_worse=is_no_worse(test.low, _MARGIN) if is_right_answers else None,
    )


def _draws(summary: Summary, column: Column) -> _Draws:
    rates = {draw: value_of(summary, draw, column) for draw in summary.draws()}
    known = {draw: rate for draw, rate in rates.items() if rate is not None}
    tests = [_test(summary, column, draw) for draw in known]
    return _Draws(column, tests, value_of(summary, summary.intervention, column), [*known.values()])


def _repeated_phrasings(summary: Summary, columns: Sequence[Column]) -> list[Measurement]:
    """Return the shares where a judge of words may be recognising the sentences of training."""
    harmful = {column.asked for column in columns if column.kind == "harmful"}
    return [
        row
        for row in summary.of(summary.intervention)
        if row.metric == _VERBATIM and row.task in harmful and (row.value or 0.0) >= _NOTABLE_REPEATS
    ]


def _near_duplicates(summary: Summary, columns: Sequence[Column]) -> Iterator[tuple[Measurement, str]]:
    """Yield the intervention's rates where near-duplicates count once, with the p-value against base."""
    for column in columns:
        row = summary.figure(summary.intervention, column.asked, column.metric, column.judge)
        test = comparison(summary, summary.intervention, BASE, column)
        if row is not None and row.clustered is not None and row.metric == REFUSAL:
            p_value = test.clustered.p_value if test and test.clustered else None
            yield row, "" if p_value is None else p_is(p_value)


def _counts(rows: Sequence[Measurement], what: Literal["unscored", "truncated"]) -> str:
    """Name a few, or say how many there are and which is the most."""
    counts = [f"{getattr(row, what)} of {row.n} answers of {row.variant} on {row.task}" for row in rows]
    if len(rows) <= _FEW:
        return listing(counts)
    most = max(range(len(rows)), key=lambda index: getattr(rows[index], what) / rows[index].n)
    return (
        f"{sum(getattr(row, what) for row in rows)} of {sum(row.n for row in rows)} answers on {len(rows)} pairs of "
        f"variant and task, at the most {counts[most]} (summary.json has all)"
    )
