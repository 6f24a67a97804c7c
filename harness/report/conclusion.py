"""What a run shows, in sentences that hold also when nothing works; reports/conclusion.txt.j2 words them.

Every sentence rests on a verdict of summary.json: a gain on an adjusted p-value that also holds in the worst case for
unscored answers, a cost on the bound beside its margin, and what is said of choosing experts on the random draws.
Overlapping intervals are never read as a test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from harness.metrics.route_drift import KINDS
from harness.report import judging
from harness.report.cards import disagreements
from harness.report.chosen import chosen_experts
from harness.report.columns import Column, Effect, columns_of, comparison, gain_columns, value_of
from harness.report.page import environment
from harness.report.similarity import near_and_far
from harness.report.stars import stars, undecided_costs
from harness.report.words import (
    hundredths,
    interval,
    listing,
    p_is,
    rounded_up,
    signed,
    signed_number,
    visible,
)
from harness.runs.inference import ALPHA
from harness.runs.rows import BASE, HARMFUL, REFUSAL, Claim, Comparison, Measurement, Verdict
from harness.runs.summary import Summary

# What a sentence is about; the order is that of importance.
Topic = Literal[
    "proof",
    "scope",
    "afterwards",
    "harm",
    "disagree",
    "caveat",
    "claim",
    "costs",
    "experts",
    "stars",
    "held",
    "routes",
    "depends",
    "repeated",
    "similar",
    "sampled",
    "unscored",
    "truncated",
    "clustered",
    "judge",
    "harmfulness",
    "skipped",
]
_VERBATIM = "refusal_verbatim_trained"
_FEW = 3
_NOTABLE_TRUNCATED = 0.1
_NOTABLE_REPEATS = 0.5


@dataclass(frozen=True, slots=True)
class _Test:
    """The intervention against base on one column, its figures as text; those of the pairs where it was tested.

    Attributes:
        column: the figure.
        verdict: what is decided; None where nothing could be.
        is_higher: whether the intervention's figure is above base's.
        is_among_scored: whether the gain would be shown if unscored answers were left out.
        own: the intervention's figure.
        other: base's.
        difference: with its interval.
        p: the adjusted p-value.
        n: pairs, and groups of near-duplicates where there are any.
        detectable: what is found in four of five runs.
        margin: of a cost.
        bound: of a cost, the largest loss that is not ruled out.
        needed: of a cost that is not decided, what would decide it.
        moves: which way the figure goes, of a figure that cannot be tested; None where it does not move.
        is_better: whether that is for the better.
    """

    column: Column
    verdict: Verdict | None
    is_higher: bool
    is_among_scored: bool
    own: str
    other: str
    difference: str = ""
    p: str = ""
    n: str = ""
    detectable: str = ""
    margin: str = ""
    bound: str = ""
    needed: str = ""
    moves: Effect | None = None
    is_better: bool | None = None


def conclude(summary: Summary) -> list[str]:
    """Return the conclusion, one sentence per item, the most important first."""
    return [sentence for sentences in sentences_by_topic(summary).values() for sentence in sentences]


def beside_base(summary: Summary) -> list[str]:
    """Return the variants that were evaluated beside the unchanged model, without random draws."""
    return [
        each
        for each, made in summary.variants.items()
        if each != BASE and not made.is_draw and made.skipped is None
    ]


def compared_columns(summary: Summary) -> dict[Topic, list[Column]]:
    """Return the figures on which the intervention is set against base, by topic: one sentence each, in this order."""
    variant = summary.variants.get(summary.intervention)
    is_compared = variant is not None and variant.skipped is None and summary.intervention != BASE
    if not is_compared or summary.lacks_verdicts:
        return {"harm": [], "disagree": [], "costs": []}
    columns = columns_of([summary])
    deciding = [column for column in columns if column.decides]
    harm = [*gain_columns(summary, columns), *(column for column in deciding if column.kind == "harmful")]
    return {
        "harm": list(dict.fromkeys(harm)),
        "disagree": list(disagreements(summary)),
        "costs": [column for column in deciding if column.kind != "harmful"],
    }


def sentences_by_topic(summary: Summary) -> dict[Topic, list[str]]:
    """Return the conclusion by topic, the most important first; topics on which nothing is said are empty."""
    name = summary.intervention
    columns = columns_of([summary])
    deciding = [column for column in columns if column.decides]
    compared = compared_columns(summary)
    judges = judging.deciding(summary)
    rates = judging.rates_of(summary, summary.judge)
    often_truncated = [row for row in rates if row.n and (row.truncated or 0) / row.n >= _NOTABLE_TRUNCATED]
    starred = stars(summary)
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
        beside=beside_base(summary),
        asks_harmful=any(column.kind == "harmful" for column in deciding),
        harmful=[_test(summary, column) for column in compared["harm"]],
        disagreements=disagreements(summary),
        claims=[_claim(claim, summary) for claim in summary.claims],
        costs=[_test(summary, column) for column in compared["costs"]],
        chosen=chosen_experts(summary),
        starred=starred,
        undecided={each: _undecided(summary, each) for each, star in starred.items() if star == "hollow"},
        held=_held(summary),
        routes=_routes(summary),
        repeated=_repeated_phrasings(summary, deciding),
        by_similarity=near_and_far(summary),
        unscored={
            judge: _counts(rows, "unscored")
            for judge in judges
            if (rows := [row for row in judging.rates_of(summary, judge) if row.unscored])
        },
        truncated=_counts(often_truncated, "truncated"),
        looping=_counts([row for row in rates if row.looping], "looping"),
        clustered=_near_duplicates(summary, deciding),
        disputed=judging.disputed(summary),
        undisputed=judging.undisputed(summary),
        judges=[judging.beside_labels(summary, judge) for judge in judges if judge in summary.judges],
        harmfulness=[
            _test(summary, column)
            for column in columns
            if column.metric == HARMFUL
            and column not in compared["harm"]
            and not summary.lacks_verdicts
            and comparison(summary, name, BASE, column)
        ],
    )
    topics: dict[Topic, list[str]] = {topic: [] for topic in get_args(Topic)}
    headings = {f"[{topic}]": topics[topic] for topic in topics}
    sentences: list[str] = []
    for line in text.split("\n"):
        if line in headings:
            sentences = headings[line]
        elif line.strip():
            sentences.append(line)
    return topics


def claimed(claim: Claim) -> str:
    """Return what is claimed about choosing experts."""
    what, n = f"choosing experts by {claim.method}", len(claim.draws)
    if claim.verdict == "nothing claimed" or claim.p_value is None:
        return f"{what}: nothing is claimed ({claim.reason})"
    state = "is better than" if claim.verdict == "shown" else "is not shown to be better than"
    return f"{what} {state} {n} random draws ({p_is(claim.p_value)})"


def _test(summary: Summary, column: Column) -> _Test:
    test = comparison(summary, summary.intervention, BASE, column)
    values = (
        (value_of(summary, summary.intervention, column), value_of(summary, BASE, column))
        if test is None or test.value is None
        else (test.value, test.against_value)
    )
    own, other = (
        column.show(value) + ("%" if column.is_share else "") if value is not None else "no value"
        for value in values
    )
    if test is None or test.difference is None or test.verdict is None:
        moves = _moves(*values)
        is_better = column.is_better(moves or "untested")
        return _Test(column, None, False, False, own, other, moves=moves, is_better=is_better)
    show: Callable[[float], str] = signed if column.is_share else signed_number
    unit = " points" if column.is_share else ""
    ends = interval(test.low, test.high, show)
    least = test.minimum_detectable
    return _Test(
        column,
        test.verdict,
        test.difference > 0,
        test.p_adjusted is not None and test.p_adjusted < ALPHA,
        own,
        other,
        difference=f"{show(test.difference)}{unit}{f', 95% interval {ends}' if ends else ''}",
        p="" if test.p_adjusted is None else f"adjusted {p_is(test.p_adjusted)}",
        n=f"n = {test.n}" + (f" in {test.clusters} groups" if test.clusters is not None else ""),
        detectable="" if least is None else f"{column.show(least)}{unit}",
        margin="" if test.margin is None else f"{rounded_up(test.margin)} points",
        bound="" if test.bound is None else f"{rounded_up(max(test.bound, 0.0))} points",
        needed=_needed(test),
    )


def _moves(own: float | None, other: float | None) -> Effect | None:
    if own is None or other is None or own == other:
        return None
    return "higher" if own > other else "lower"


def _needed(test: Comparison) -> str:
    """Return what would decide a cost."""
    if test.needed is None:
        return "more samples would not decide it at these rates"
    what = "groups of near-duplicates" if test.clusters is not None else test.unit
    return f"at these rates it would take about {test.needed:,} {what}, and there are {test.decided_on:,}"


def _undecided(summary: Summary, variant: str) -> str:
    """Name the costs of a variant that are not decided, with the samples that each would need."""
    costs = []
    for column, test in undecided_costs(summary, variant):
        needed = "not tested" if test is None or test.verdict is None else _needed(test)
        costs.append(f"{column.name} on {column.task} ({needed})")
    return listing(costs)


def _held(summary: Summary) -> list[str]:
    """Name the variants whose frozen proof held; several random draws are one name."""
    held = [each for each, made in summary.variants.items() if made.frozen_unchanged]
    draws = [each for each in held if summary.variants[each].is_draw]
    if len(draws) < 2:
        return held
    return [*(each for each in held if each not in draws), f"{len(draws)} random draws"]


def _routes(summary: Summary) -> list[str]:
    """Return what share of base's routes the intervention keeps, by kind of prompt; nothing of base itself."""
    if summary.intervention == BASE:
        return []
    shares = []
    for kind in KINDS:
        row = summary.figure(summary.intervention, None, f"routes_kept_{kind}_prompt")
        if row is not None and row.value is not None:
            ends = interval(row.low, row.high, hundredths)
            shares.append(f"{hundredths(row.value)}%{f' ({ends})' if ends else ''} on {kind} prompts")
    return shares


def _claim(claim: Claim, summary: Summary) -> str:
    """Return what is claimed about choosing experts, and where the method's figure lies among its draws'."""
    sentence = f"{claimed(claim)}."
    sentence = sentence[0].upper() + sentence[1:]
    if claim.value is None or not claim.draws:
        return sentence
    values = sorted(claim.draws.values())
    ends = [f"{hundredths(value)}%" for value in (values[0], values[-1])]
    draws = (
        f"the draw has {ends[0]}" if len(values) == 1 else f"{len(values)} draws have {ends[0]} to {ends[1]}"
    )
    use = "" if claim.use_share is None else f", with experts used {claim.use_share:.0%} as much"
    metric = (
        claim.metric if summary.is_gain_declared else f"{claim.metric}, which nothing declared beforehand,"
    )
    tasks = f"{metric} over {listing(claim.tasks)}"
    own = f"{hundredths(claim.value)}% ({tasks}, unscored answers counted against it)"
    return f"{sentence} {claim.variant} has {own}; {draws}{use}."


def _repeated_phrasings(summary: Summary, columns: Sequence[Column]) -> list[Measurement]:
    """Return the shares where a judge of words may be recognising the sentences of training."""
    harmful = {column.asked for column in columns if column.kind == "harmful"}
    return [
        row
        for row in summary.of(summary.intervention)
        if row.metric == _VERBATIM and row.task in harmful and (row.value or 0.0) >= _NOTABLE_REPEATS
    ]


def _near_duplicates(summary: Summary, columns: Sequence[Column]) -> list[str]:
    """Name the tasks whose prompts repeat one another."""
    rows = [
        summary.figure(summary.intervention, column.asked, column.metric, column.judge)
        for column in columns
        if column.metric == REFUSAL
    ]
    return [
        f"the {row.prompts or row.scored} of {row.task} form {row.clusters}"
        for row in rows
        if row is not None and row.clusters is not None
    ]


def _counts(rows: Sequence[Measurement], what: Literal["unscored", "truncated", "looping"]) -> str:
    """Name a few, or say how many there are and which is the most."""
    counts = [f"{getattr(row, what)} of {row.n} answers of {row.variant} on {row.task}" for row in rows]
    if len(rows) <= _FEW:
        return listing(counts)
    most = max(range(len(rows)), key=lambda index: getattr(rows[index], what) / rows[index].n)
    return (
        f"{sum(getattr(row, what) for row in rows)} of {sum(row.n for row in rows)} answers on {len(rows)} pairs of "
        f"variant and task, at the most {counts[most]} (summary.json has all)"
    )
