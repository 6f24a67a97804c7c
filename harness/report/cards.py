"""The cards of a finding: a question about the intervention, answered on one task.

A card shows one task. Of several it is the one that decides against the intervention: first a loss that is shown, then
what is not tested, then what is not decided, and among equals the figure that is furthest from the wanted side. So no
task hides another.

Harm is answered by the figure that gains rest on. Where both quantities were judged, the other one stands beside it
with its own test and decides nothing; where the two do not say the same, the card says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from harness.report.columns import Column, columns_of, comparison, gain_columns, other_columns, value_of
from harness.report.words import interval, p_is, rounded_up, signed, signed_number
from harness.runs.rows import BASE, Comparison, Verdict
from harness.runs.summary import Summary

Subject = Literal["harm", "false refusal", "capability"]
Tone = Literal["good", "bad", "open"]

_QUESTIONS: dict[Subject, str] = {
    "harm": "Did harm fall?",
    "false refusal": "Did false refusal rise?",
    "capability": "Did capability fall?",
}
_WORST_FIRST: tuple[Verdict | None, ...] = ("worse", None, "not decided", "no worse", "better")
_TONES: dict[Verdict | None, Tone] = {"better": "good", "no worse": "good", "worse": "bad"}


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
        beside: of harm, the quantity on this task that decides no gain; None where it was not judged.
    """

    subject: Subject
    column: Column | None = None
    test: Comparison | None = None
    base: float | None = None
    variant: float | None = None
    draws: tuple[Draw, ...] = ()
    tasks: int = 0
    beside: Card | None = None

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
        if self._is_refusal_only:
            return "more refusals only"
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
        return "open" if self._is_refusal_only else _TONES.get(self.verdict, "open")

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
    def moves(self) -> str:
        """What is shown of the figure, of harm."""
        return "" if self.column is None else _moves(self.column, self.verdict)

    @property
    def summed_up(self) -> str:
        """The figure in one line, for where it stands beside another on the same task."""
        if self.column is None:
            return ""
        change = f": {self.change}" if self.change else ""
        ends = f"95% {self.interval}" if self.interval else ""
        tested = ", ".join(part for part in (ends, self.margin) if part)
        figures = f"{self.show(self.base)} → {self.show(self.variant)}"
        return f"{self.column.name} {figures}{change}{f' ({tested})' if tested else ''}"

    @property
    def disagreement(self) -> str:
        """What the two quantities say of this task, where that is not the same."""
        if self.column is None or self.beside is None or self.beside.column is None:
            return ""
        said = _disagree(self.column, self.verdict, self.beside.column, self.beside.verdict)
        return f"The two disagree: {said}." if said else ""

    @property
    def _is_refusal_only(self) -> bool:
        """Whether refusal, which was declared to decide, rises without less harm where that was judged too."""
        is_refusal = self.column is not None and self.column.better == "higher"
        return is_refusal and self.verdict == "better" and self.disagreement != ""

    @property
    def _points(self) -> str:
        return " points" if self.column is not None and self.column.is_share else ""

    def _signed(self, value: float) -> str:
        return signed(value) if self.column is not None and self.column.is_share else signed_number(value)


def cards_of(summary: Summary) -> tuple[Card, ...]:
    """Return the cards on harm, false refusal and capability; none of the unchanged model, which nothing became of."""
    if summary.intervention == BASE:
        return ()
    subjects: tuple[Subject, ...] = ("harm", "false refusal", "capability")
    return tuple(_weakest(summary, subject) for subject in subjects)


def card_columns(summary: Summary, subject: Subject) -> list[Column]:
    """Return the figures that answer a question."""
    columns = columns_of([summary])
    if subject == "harm":
        return gain_columns(summary, columns)
    kind = {"false refusal": "benign", "capability": "capability"}[subject]
    return [column for column in columns if column.kind == kind and column.decides and column.is_testable]


def verdict_of(summary: Summary, column: Column, variant: str | None = None) -> Verdict | None:
    """Return what the comparison of a variant, the intervention unless named, with base decides on a figure."""
    test = _test(summary, column, variant)
    return None if test is None else test.verdict


def disagreements(summary: Summary) -> dict[Column, str]:
    """Return the tasks on which refusal and harmful answers do not say the same, by the figure that gains rest on."""
    columns, said = columns_of([summary]), {}
    others = {column.asked: column for column in other_columns(summary, columns)}
    for column in gain_columns(summary, columns):
        if (other := others.get(column.asked)) is not None:
            verdicts = verdict_of(summary, column), verdict_of(summary, other)
            said[column] = _disagree(column, verdicts[0], other, verdicts[1])
    return {column: words for column, words in said.items() if words}


def _disagree(column: Column, verdict: Verdict | None, other: Column, others: Verdict | None) -> str:
    if None in (verdict, others) or verdict == others:
        return ""
    return f"{_moves(column, verdict)}, {_moves(other, others)}"


def _moves(column: Column, verdict: Verdict | None) -> str:
    """Return whether refusal rises, or harmful answers fall."""
    words: dict[Verdict | None, str] = (
        {
            "better": "refusal rises",
            "worse": "refusal FALLS",
            "not decided": "refusal is not shown to rise",
        }
        if column.better == "higher"
        else {
            "better": "harmful answers fall",
            "worse": "harmful answers RISE",
            "not decided": "harmful answers are not shown to fall",
        }
    )
    return words.get(verdict, f"{column.name} not tested")


def _weakest(summary: Summary, subject: Subject) -> Card:
    columns = card_columns(summary, subject)
    if not columns:
        return Card(subject)
    column = min(columns, key=lambda column: _weakness(summary, column))
    others = other_columns(summary, columns_of([summary])) if subject == "harm" else []
    other = next((each for each in others if each.asked == column.asked), None)
    beside = None if other is None else _card(summary, subject, other)
    return _card(summary, subject, column, len(columns), beside)


def _card(
    summary: Summary, subject: Subject, column: Column, tasks: int = 1, beside: Card | None = None
) -> Card:
    test = _test(summary, column)
    base, variant = (
        (value_of(summary, BASE, column), value_of(summary, summary.intervention, column))
        if test is None or test.value is None
        else (test.against_value, test.value)
    )
    figures = ((name, value_of(summary, name, column)) for name in summary.draws())
    draws = tuple(Draw(name, value) for name, value in figures if value is not None)
    return Card(subject, column, test, base, variant, draws, tasks, beside)


def _weakness(summary: Summary, column: Column) -> tuple[int, float]:
    """Return what sorts the figure that speaks most against the intervention first."""
    test = _test(summary, column)
    if test is None or test.difference is None:
        return _WORST_FIRST.index(None), 0.0
    if test.bound is not None and test.margin is not None:
        return _WORST_FIRST.index(test.verdict), test.margin - test.bound
    gain = test.difference if column.better == "higher" else -test.difference
    return _WORST_FIRST.index(test.verdict), gain


def _test(summary: Summary, column: Column, variant: str | None = None) -> Comparison | None:
    return comparison(summary, variant or summary.intervention, BASE, column)
