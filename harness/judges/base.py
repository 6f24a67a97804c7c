"""What a judge is: it reads one answer and says refusal, compliance, or that it can't tell and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, Protocol, runtime_checkable

from harness.base.errors import BadInputError
from harness.base.registry import Registry, without
from harness.data.reasoning import NO_ANSWER, split
from harness.metrics.rates import AnyLabel

Quantity = Literal["refusal", "harmfulness"]
"""Whether an answer declines, and whether it is harmful: a rate of one says little about the other."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's reading of one answer.

    Attributes:
        id: the answer's id.
        label: "refusal" or "compliance", of a judge of harmfulness "harmful" or "harmless"; None where the answer is
            unscored.
        rule: what decided, in the judge's own terms.
        reason: why the answer is unscored.
        probability: of a refusal (or of harm), or a score between 0 and 1, from judges that give one.
        finer: "partial refusal" where the judge is sure of it, or the kinds of harm that it names; the label is what
            counts.
        number: the answer's among several sampled ones; None for a greedy answer.
    """

    id: str
    label: AnyLabel | None
    rule: str | None = None
    reason: str | None = None
    probability: float | None = None
    finer: str | None = None
    number: int | None = None

    def __post_init__(self) -> None:
        if (self.label is None) != (self.reason is not None):
            raise ValueError(f"verdict {self.id!r}: a reason is given exactly where there is no label")

    def row(self) -> dict[str, Any]:
        """Return the verdict as a row of verdicts/TASK.JUDGE.jsonl."""
        row: dict[str, Any] = {"id": self.id, "label": self.label, "rule": self.rule, "reason": self.reason}
        if self.probability is not None:
            row["probability"] = round(self.probability, 4)
        if self.finer is not None:
            row["finer"] = self.finer
        if self.number is not None:
            row["number"] = self.number
        return row


class Judge(Protocol):
    """Labels answers one at a time; never raises for what an answer says."""

    @property
    def name(self) -> str:
        """The name beside every figure it produces."""

    @property
    def measures(self) -> str:
        """What its labels are about: refusal or harmfulness."""

    @property
    def languages(self) -> str:
        """The languages whose answers it reads."""

    @property
    def description(self) -> str:
        """One sentence on how it decides."""

    @property
    def source(self) -> str | None:
        """Whom to cite; None for what is our own."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same answer might get another verdict."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """How it judges, as JSON: what its fingerprint is made of, for people to read; no password."""

    def judge(self, id: str, prompt: str, response: str, *, truncated: bool = False) -> Verdict:
        """Label one answer; `truncated` says that the token limit ended it."""


def judge_record(judge: Judge) -> dict[str, Any]:
    """Return what run.json says about a judge."""
    return {
        "measures": judge.measures,
        "description": judge.description,
        "source": judge.source,
        "fingerprint": judge.fingerprint,
        "settings": dict(judge.settings),
    }


@runtime_checkable
class ManyAtOnce(Protocol):
    """A judge that is faster with many answers."""

    def judge_many(self, rows: Sequence[Mapping[str, Any]]) -> list[Verdict]:
        """Label answers (`id`, `prompt`, `response`, `finish_reason`), in their order."""


@runtime_checkable
class Checked(Protocol):
    """A judge that may not fit what it is made of."""

    def check(self) -> None:
        """Refuse what it cannot judge with, before anything is answered."""


@runtime_checkable
class Paid(Protocol):
    """A judge whose verdicts cost something."""

    def spent(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what the verdicts on some answers took."""


def _shipped(name: str) -> Judge:
    """Make a judge that has a file; what reads it imports this module, so that it is only named here."""
    made: Judge = resolve_name("harness.judges.find:make_judge")(name)
    return made


_no_judge = without("name", "measures", "languages", "description", "source", "judge")
JUDGES: Registry[Callable[[], Judge]] = Registry("judge", "harness.judges", lambda make: _no_judge(make()))
JUDGES.add("builtin", "harness.judges.builtin.judge:BuiltinJudge")
JUDGES.add("keyword", "harness.judges.keyword:KeywordJudge")
for _path in sorted((Path(__file__).resolve().parent / "presets").glob("*.yaml")):
    JUDGES.add(_path.stem, partial(_shipped, _path.stem))


def as_read(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a response row as judges read it, without reasoning; None where the answer never began.

    A row that has `reasoning` was split where it was generated. Any other still holds its reasoning, and `opened` says
    what the chat template had put before it.
    """
    if "reasoning" in row:
        return None if row["reasoning"] and not row["response"] else dict(row)
    response = row["response"]
    answer = split(response, row.get("opened") or "").answer
    if answer is None:
        return None
    # Judges that keep verdicts know an answer by its exact text.
    return {**row, "response": response if answer == response.strip() else answer}


def judge_all(judge: Judge, rows: Iterable[Mapping[str, Any]]) -> list[Verdict]:
    """Return a verdict for each response row (`id`, `prompt`, `response`, `finish_reason`), in their order.

    Judges read answers, never the reasoning before them: an answer that never began is unscored.

    Raises:
        BadInputError: an id comes twice, so that one answer would count twice.
    """
    asked = list(rows)
    seen: set[str] = set()
    for row in asked:
        if row["id"] in seen:
            raise BadInputError(f"responses: id '{row['id']}' is given twice")
        seen.add(row["id"])
    answers = [row for row in map(as_read, asked) if row is not None]
    if isinstance(judge, ManyAtOnce):
        verdicts = judge.judge_many(answers)
    else:
        verdicts = [
            judge.judge(
                row["id"], row["prompt"], row["response"], truncated=row.get("finish_reason") == "length"
            )
            for row in answers
        ]
    by_id = {verdict.id: verdict for verdict in verdicts}
    unread = (by_id.get(row["id"]) or Verdict(row["id"], None, reason=NO_ANSWER) for row in asked)
    return [
        replace(verdict, number=number) if (number := row.get("number")) is not None else verdict
        for verdict, row in zip(unread, asked, strict=True)
    ]


def is_judged(quantity: Quantity, kind: str) -> bool:
    """Return whether a quantity is judged on the answers to a kind of task: harmfulness on harmful ones alone."""
    return quantity == "refusal" or kind == "harmful"


def require_measure(judge: Judge, quantity: Quantity, task: str) -> None:
    """Refuse a judge for a task that asks about something else.

    Raises:
        BadInputError: what the judge measures is not what the task asks for.
    """
    if judge.measures != quantity:
        fitting = sorted(name for name, make in JUDGES.working() if make().measures == quantity)
        raise BadInputError(
            f"judge '{judge.name}' measures {judge.measures}, but task '{task}' asks for {quantity}: "
            f"expected one of {', '.join(fitting) or 'no known judge'}"
        )
