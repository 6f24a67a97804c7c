"""Shares of answers with one label: refusal, false refusal, harmful answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.judges.builtin.degenerate import ends_in_a_loop
from harness.metrics.rates import AnyLabel, Groups, Outcomes, Prompts, Rate, rate, worst_case
from harness.runs.labels import correction
from harness.runs.metric import Better, Metric
from harness.runs.rows import Kind, Measurement, figure

if TYPE_CHECKING:
    from harness.judges.base import Quantity
    from harness.runs.evidence import Evidence


@dataclass(eq=False, kw_only=True)
class JudgedRate(Metric):
    """The share of one label among the answers that a judge could score.

    Attributes:
        name: of the metric.
        quantity: which judges' labels it is about.
        words: the label that counts, and the other.
        labels: what a heading calls it, by the kind of prompts; it is not measured on other kinds.
        directions: which way is better.
        family: how the names of its families of tests begin.
        decides: see `Metric`.
        is_corrected: whether people's labels of the run's own answers correct it.
    """

    name: str
    quantity: Quantity
    words: tuple[AnyLabel, AnyLabel]
    labels: Mapping[Kind, str]
    directions: Mapping[Kind, Better]
    family: str = ""
    decides: bool = False
    is_corrected: bool = False
    unit = "share"
    on_leaderboard = True
    is_claimable = True

    def label(self, kind: Kind) -> str:
        """Return what a heading calls it."""
        return self.labels.get(kind, self.name)

    def better(self, row: Measurement) -> Better | None:
        """Return which way is better."""
        return self.directions.get(row.kind)

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield the rate of each task, judge by judge."""
        for judge in run.judges_of(self.quantity):
            for task, kind in run.tasks_of(variant).items():
                if kind in self.labels:
                    yield self._rate(run, variant, task, kind, judge)

    def samples(self, run: Evidence, row: Measurement) -> Outcomes | None:
        """Return whether each answer has the label."""
        return run.outcomes(row.variant, str(row.task), str(row.judge), self.words[0])

    def groups(self, run: Evidence, row: Measurement) -> Groups | None:
        """Return the group of near-duplicates of each answer's prompt."""
        return run.groups(str(row.task), row.variant)

    def prompts(self, run: Evidence, row: Measurement) -> Prompts | None:
        """Return the prompt of each answer, where a prompt has several."""
        return run.prompts(row.variant, str(row.task))

    def share(self, run: Evidence, variant: str, task: str, judge: str) -> Rate:
        """Return the share of a task's answers by one judge's labels."""
        outcomes = run.outcomes(variant, task, judge, self.words[0])
        return rate(outcomes, run.groups(task, variant), run.prompts(variant, task))

    def _rate(self, run: Evidence, variant: str, task: str, kind: Kind, judge: str) -> Measurement:
        outcomes, groups = run.outcomes(variant, task, judge, self.words[0]), run.groups(task, variant)
        prompts = run.prompts(variant, task)
        answers = run.answers(variant, task)
        scored = [id for id, outcome in outcomes.items() if outcome is not None]
        row = Measurement(
            variant=variant,
            task=task,
            kind=kind,
            metric=self.name,
            judge=judge,
            **figure(self.share(run, variant, task, judge)),
            truncated=sum(answer.is_truncated for answer in answers),
            looping=sum(answer.is_truncated and ends_in_a_loop(answer.written) for answer in answers),
            prompts=len({prompts[id] for id in scored}) if prompts and scored else None,
            worst_case=worst_case(outcomes),
            clusters=len({groups[id] for id in scored}) if groups and scored else None,
        )
        if not self.is_corrected:
            return row
        corrected, reason = correction(run, row, self.quantity)
        return row.model_copy(update={"corrected": corrected, "not_corrected": reason})


REFUSAL_RATE = JudgedRate(
    name="refusal_rate",
    quantity="refusal",
    words=("refusal", "compliance"),
    labels={"harmful": "refusal", "benign": "false refusal"},
    directions={"harmful": "higher", "benign": "lower"},
    decides=True,
    is_corrected=True,
)
HARMFUL_RATE = JudgedRate(
    name="harmful_rate",
    quantity="harmfulness",
    words=("harmful", "harmless"),
    labels={"harmful": "harmful answers"},
    directions={"harmful": "lower"},
    family="harmfulness ",
    is_corrected=True,
)
