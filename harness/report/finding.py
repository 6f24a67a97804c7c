"""What a run found, as one value that every format shows: a headline, three cards, a claim, a doubt and bullets.

A card shows one task. Of several it is the one that decides against the intervention: first a loss that is shown, then
what is not tested, then what is not decided, and among equals the figure that is furthest from the wanted side. So no
task hides another.

The doubt is the first of these that applies: a frozen proof that failed; a judge that was never compared with people;
a conclusion that depends on the judge; refusals that repeat the sentences of training, which a judge may know by heart;
answers that the token limit truncated; answers that could not be scored; the judge's own errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness.report import judging
from harness.report.columns import Column, columns_of, comparison, harm_columns, value_of
from harness.report.conclusion import Topic, compared_columns, sentences_by_topic
from harness.report.words import (
    interval,
    listing,
    p_is,
    rounded_up,
    signed,
    signed_number,
    visible,
)
from harness.runs.rows import BASE, HARMFUL, Comparison, Kind, Verdict
from harness.runs.summary import Summary

MOST_BULLETS = 5
_NAMED = 2
Subject = Literal["harm", "false refusal", "capability"]
Tone = Literal["good", "bad", "open"]

_QUESTIONS: dict[Subject, str] = {
    "harm": "Did harm fall?",
    "false refusal": "Did false refusal rise?",
    "capability": "Did capability fall?",
}
_WORST_FIRST: tuple[Verdict | None, ...] = ("worse", None, "not decided", "no worse", "better")
_TONES: dict[Verdict | None, Tone] = {"better": "good", "no worse": "good", "worse": "bad"}
# The sentences that are bullets before others; those of harm and costs that no card shows come before them.
_FIRST: tuple[Topic, ...] = (
    "proof",
    "scope",
    "skipped",
    "caveat",
    "harm",
    "costs",
    "harmfulness",
    "experts",
    "stars",
)
_DOUBTS: tuple[Topic, ...] = ("proof", "depends", "repeated", "truncated", "unscored", "judge")


class Draw(NamedTuple):
    """A random draw of experts and its figure on a card's task."""

    variant: str
    value: float


@dataclass(frozen=True, slots=True)
class Card:
    """One question about the intervention, answered on one task.

    Attributes:
        subject: what is asked about.
        column: the figure; None where it was not measured.
        test: the comparison with base; None where there is none.
        base: base's figure, over the pairs where it was tested.
        variant: the intervention's.
        draws: those of the random draws that were measured on it.
        tasks: how many tasks the question was put to.
    """

    subject: Subject
    column: Column | None = None
    test: Comparison | None = None
    base: float | None = None
    variant: float | None = None
    draws: tuple[Draw, ...] = ()
    tasks: int = 0

    @property
    def question(self) -> str:
        """What is asked."""
        return _QUESTIONS[self.subject]

    @property
    def verdict(self) -> Verdict | None:
        """What the comparison decides."""
        return None if self.test is None else self.test.verdict

    @property
    def answer(self) -> str:
        """The answer in a word or three."""
        if self.column is None:
            return "not measured"
        if self.verdict is None:
            return "not tested"
        is_harm = self.subject == "harm"
        answers = {
            "better": "yes",
            "worse": "no: more harm" if is_harm else "yes",
            "not decided": "not shown" if is_harm else "not decided",
            "no worse": "no",
        }
        return answers[self.verdict]

    @property
    def tone(self) -> Tone:
        """Whether the answer is the wanted one."""
        return _TONES.get(self.verdict, "open")

    @property
    def figure(self) -> str:
        """What was measured on which task."""
        return "" if self.column is None else f"{self.column.name}, {self.column.task}"

    @property
    def weakest(self) -> str:
        """How the task was picked, where there are several."""
        return "" if self.tasks < 2 else f"the weakest of {self.tasks} tasks"

    @property
    def change(self) -> str:
        """The variant's figure less base's."""
        if self.column is None or self.test is None or self.test.difference is None:
            return ""
        return f"{self._signed(self.test.difference)}{self._points}"

    @property
    def interval(self) -> str:
        """The interval of the change."""
        if self.column is None or self.test is None:
            return ""
        return interval(self.test.low, self.test.high, self._signed)

    @property
    def margin(self) -> str:
        """What was declared beforehand, and what is ruled out; of harm, the p-value that decides."""
        test = self.test
        if test is None:
            return ""
        if test.margin is None:
            return "" if test.p_adjusted is None else f"adjusted {p_is(test.p_adjusted)}"
        margin = f"margin {rounded_up(test.margin)} points"
        if test.bound is None:
            return margin
        bound = rounded_up(max(test.bound, 0.0))
        if test.verdict == "no worse":
            return f"{margin}; more than {bound} is ruled out"
        return f"{margin}; {bound} is not ruled out"

    def show(self, value: float | None) -> str:
        """Return a figure in its unit."""
        if value is None or self.column is None:
            return "no value"
        return self.column.show(value) + ("%" if self.column.is_share else "")

    @property
    def spread(self) -> str:
        """Where the random draws lie."""
        values = sorted(draw.value for draw in self.draws)
        if not values:
            return ""
        if len(values) == 1:
            return f"1 random draw: {self.show(values[0])}"
        return f"{len(values)} random draws: {self.show(values[0])} to {self.show(values[-1])}"

    @property
    def _points(self) -> str:
        return " points" if self.column is not None and self.column.is_share else ""

    def _signed(self, value: float) -> str:
        return signed(value) if self.column is not None and self.column.is_share else signed_number(value)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a run found.

    Attributes:
        intervention: what was evaluated.
        headline: the answer in a sentence.
        cards: harm, false refusal and capability.
        choosing: whether choosing experts matters, in a word or three.
        claim: the sentence on that.
        doubt: what to distrust most; "" where nothing is known to doubt.
        bullets: at most five sentences that matter next.
        rest: the others.
    """

    intervention: str
    headline: str
    cards: tuple[Card, ...]
    choosing: str
    claim: str
    doubt: str
    bullets: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def folded(self) -> str:
        """The heading over the rest."""
        return f"{len(self.rest)} more finding{'' if len(self.rest) == 1 else 's'}"


def find(summary: Summary) -> Finding:
    """Return what a run found."""
    topics = sentences_by_topic(summary)
    cards = _cards(summary)
    shown = {card.column for card in cards}
    claim = " ".join(topics["claim"]) or _no_claim(summary)
    doubt = next((topics[topic][0] for topic in _doubts(summary) if topics[topic]), "")
    said = {doubt, *topics["claim"]}
    compared = compared_columns(summary)
    topics_of: tuple[tuple[tuple[Kind, ...], Topic], ...] = (
        (("harmful",), "harm"),
        (("benign", "capability", "text"), "costs"),
    )
    on_cards = {
        sentence
        for kinds, topic in topics_of
        for column, sentence in zip(
            [column for column in compared if column.kind in kinds], topics[topic], strict=False
        )
        if column in shown
    }
    first = [sentence for topic in _FIRST for sentence in topics[topic] if sentence not in said | on_cards]
    later = [
        sentence
        for topic, sentences in topics.items()
        for sentence in sentences
        if sentence not in said and (topic not in _FIRST or sentence in on_cards)
    ]
    bullets, rest = first[:MOST_BULLETS], [*first[MOST_BULLETS:], *later]
    choosing = {"shown": "yes", "not shown": "not shown", "nothing claimed": "nothing is claimed"}
    return Finding(
        summary.intervention,
        headline(summary),
        cards,
        choosing[summary.claims[0].verdict] if summary.claims else "not asked",
        claim,
        doubt,
        tuple(bullets),
        tuple(rest),
    )


def headline(summary: Summary) -> str:
    """Return what the comparisons with base decide about the intervention, in a sentence."""
    name = summary.intervention
    variant = summary.variants.get(name)
    if variant is None or variant.skipped is not None:
        return visible(f"{name} was not evaluated.")
    if name == BASE:
        return "The unchanged model, with nothing to compare it with."
    if summary.lacks_verdicts:
        return visible(
            f"{name}: an earlier version wrote this summary; `harness measure` gives its verdicts."
        )
    harm, costs = (
        _columns(summary, "harm"),
        [*_columns(summary, "false refusal"), *_columns(summary, "capability")],
    )
    harmful = [column for column in harm_columns(summary) if column not in harm]
    verdicts = {column: _verdict(summary, column) for column in [*harm, *harmful, *costs]}
    broken = [each for each, made in summary.variants.items() if made.frozen_unchanged is False]
    warning = f"The frozen proof FAILED for {', '.join(broken)}. " if broken else ""
    gain = _gain([verdicts[column] for column in harm], harm)
    if any(verdicts[column] is not None for column in harmful):
        gain += f" and {_gain([verdicts[column] for column in harmful], harmful)}"
    doubt = "; this depends on the judge" if judging.disputed(summary) else ""
    return visible(f"{warning}{name} {gain}{_costs({column: verdicts[column] for column in costs})}{doubt}.")


def _gain(verdicts: Sequence[Verdict | None], columns: Sequence[Column]) -> str:
    if not verdicts:
        return "was asked nothing harmful"
    is_refusal = columns[0].better == "higher"
    more, less = ("refuses more", "refuses LESS") if is_refusal else ("gives fewer", "gives MORE")
    what = "harmful prompts" if is_refusal else "harmful answers"
    tasks, gains, losses = len(verdicts), verdicts.count("better"), verdicts.count("worse")
    on = "" if tasks == 1 else f" on {gains} of {tasks} harmful tasks"
    loss = f"{less} on {losses} of {tasks}" if tasks > 1 else f"{less} {what} than base"
    if losses and not gains:
        return loss if tasks == 1 else f"{less} {what} than base on {losses} of {tasks} harmful tasks"
    if not gains:
        verb = more.replace("refuses", "refuse").replace("gives", "give")
        return f"is not shown to {verb} {what} than base"
    return f"{more} {what} than base{on}{f' and {loss}' if losses else ''}"


def _costs(verdicts: dict[Column, Verdict | None]) -> str:
    """Name the costs that are shown or open; those that are not are one phrase."""
    if not verdicts:
        return "; no cost was measured"
    groups = (
        ("worse", [column for column, verdict in verdicts.items() if verdict == "worse"]),
        ("not decided", [column for column, verdict in verdicts.items() if verdict in ("not decided", None)]),
    )
    parts = [f"{state}: {_named(columns)}" for state, columns in groups if columns]
    if parts:
        return f"; {'; '.join(parts)}"
    kinds = dict.fromkeys("false refusal" if column.kind == "benign" else "capability" for column in verdicts)
    within = "is no worse within its margin" if len(kinds) == 1 else "are no worse within their margins"
    return f"; {listing(list(kinds))} {within}"


def _named(columns: Sequence[Column]) -> str:
    names = [
        f"{'false refusal' if column.kind == 'benign' else 'capability'} on {column.task}"
        for column in columns
    ]
    more = len(names) - _NAMED
    return listing(names) if more < 2 else f"{', '.join(names[:_NAMED])} and {more} more"


def _cards(summary: Summary) -> tuple[Card, ...]:
    subjects: tuple[Subject, ...] = ("harm", "false refusal", "capability")
    return tuple(_card(summary, subject) for subject in subjects)


def _card(summary: Summary, subject: Subject) -> Card:
    columns = _columns(summary, subject)
    if not columns:
        return Card(subject)
    column = min(columns, key=lambda column: _weakness(summary, column))
    test = _test(summary, column)
    base, variant = (
        (value_of(summary, BASE, column), value_of(summary, summary.intervention, column))
        if test is None or test.value is None
        else (test.against_value, test.value)
    )
    figures = ((name, value_of(summary, name, column)) for name in summary.draws())
    draws = tuple(Draw(name, value) for name, value in figures if value is not None)
    return Card(subject, column, test, base, variant, draws, len(columns))


def _columns(summary: Summary, subject: Subject) -> list[Column]:
    """Return the figures that answer a question; of harm, that of the claim where it is another than refusal."""
    columns = [column for column in columns_of([summary]) if column.is_testable]
    kind = {"harm": "harmful", "false refusal": "benign", "capability": "capability"}[subject]
    if subject == "harm" and any(claim.metric == HARMFUL for claim in summary.claims):
        judges = {claim.judge for claim in summary.claims}
        declared = [column for column in columns if column.metric == HARMFUL and column.judge in judges]
        if declared:
            return declared
    return [column for column in columns if column.kind == kind and column.decides]


def _weakness(summary: Summary, column: Column) -> tuple[int, float]:
    """Return what sorts the figure that speaks most against the intervention first."""
    test = _test(summary, column)
    if test is None or test.difference is None:
        return _WORST_FIRST.index(None), 0.0
    if test.bound is not None and test.margin is not None:
        return _WORST_FIRST.index(test.verdict), test.margin - test.bound
    gain = test.difference if column.better == "higher" else -test.difference
    return _WORST_FIRST.index(test.verdict), gain


def _test(summary: Summary, column: Column) -> Comparison | None:
    return comparison(summary, summary.intervention, BASE, column)


def _verdict(summary: Summary, column: Column) -> Verdict | None:
    test = _test(summary, column)
    return None if test is None else test.verdict


def _doubts(summary: Summary) -> tuple[Topic, ...]:
    judge = summary.judges.get(summary.judge)
    was_never_compared = judge is not None and judge.accuracy is None and judge.own is None
    return ("proof", "judge", *_DOUBTS[1:]) if was_never_compared else _DOUBTS


def _no_claim(summary: Summary) -> str:
    if summary.selection is None:
        return "Nothing is claimed: this run chose no experts."
    return "Nothing is claimed: no random draw of experts was evaluated."
