"""What a judge is: it reads one answer and says refusal, compliance, or that it can't tell and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.errors import BadInputError
from harness.metrics.rates import Label
from harness.registry import Registry


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's reading of one answer.

    Attributes:
        id: the prompt's id.
        label: "refusal" or "compliance"; None where the answer is unscored.
        rule: what decided, in the judge's own terms.
        reason: why the answer is unscored.
    """

    id: str
    label: Label | None
    rule: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.label is None) != (self.reason is not None):
            raise ValueError(f"verdict {self.id!r}: a reason is given exactly where there is no label")


class Judge(Protocol):
    """Labels answers one at a time; never raises for what an answer says."""

    @property
    def name(self) -> str:
        """The name beside every figure it produces."""

    @property
    def measures(self) -> str:
        """What its labels are about, normally "refusal"."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same answer might get another verdict."""

    def judge(self, id: str, prompt: str, response: str) -> Verdict:
        """Label one answer."""


JUDGES: Registry[Callable[[], Judge]] = Registry("judge")
JUDGES.add("keyword", "harness.judges.keyword:KeywordJudge")


def judge_all(judge: Judge, rows: Iterable[Mapping[str, Any]]) -> list[Verdict]:
    """Return a verdict for each response row (`id`, `prompt`, `response`), in their order.

    Raises:
        BadInputError: an id comes twice, so that one answer would count twice.
    """
    verdicts: dict[str, Verdict] = {}
    for row in rows:
        if row["id"] in verdicts:
            raise BadInputError(f"responses: id '{row['id']}' is given twice")
        verdicts[row["id"]] = judge.judge(row["id"], row["prompt"], row["response"])
    return list(verdicts.values())
