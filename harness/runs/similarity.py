"""Refusal by nearness to training prompts: does a trained variant decline more than it was trained on?

Near-duplicates never straddle a split, but below their threshold test prompts still resemble training prompts: 35 % of
AdvBench's test prompts have one at a cosine of character 3-to-5-gram TF-IDF vectors (harness/data/duplicates.py) of 0.5
or more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.metrics.rates import Groups, Outcomes, Prompts, rate
from harness.runs.metric import Better, Metric, Tested
from harness.runs.rows import Kind, Measurement, figure

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


@dataclass(eq=False)
class RefusalBySimilarity(Metric):
    """The refusal rate of a trained variant on harmful test prompts near, or not near, a prompt that it was trained on.

    Attributes:
        name: of the metric.
        heading: what a heading calls it.
        near: which of the two.
    """

    name: str
    heading: str
    near: bool
    unit = "share"
    words = ("refusal", "compliance")

    def label(self, kind: Kind) -> str:
        """Return what a heading calls it."""
        return self.heading

    def better(self, row: Measurement) -> Better | None:
        """Return which way is better."""
        return "higher"

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield the rate of each harmful task that has such prompts, by the primary judge."""
        if not run.record.evaluated[variant].trained:
            return
        for task, kind in run.tasks_of(variant).items():
            near = run.near_training(task) if kind == "harmful" else None
            # Where no prompt is near, there is nothing to tell apart.
            if near is None or True not in near.values() or self.near not in near.values():
                continue
            yield Measurement(
                variant=variant,
                task=task,
                kind=kind,
                metric=self.name,
                judge=run.primary,
                **figure(
                    rate(
                        self._outcomes(run, variant, task, run.primary, near),
                        run.groups(task, variant),
                        run.prompts(variant, task),
                    )
                ),
            )

    def samples(self, run: Evidence, row: Measurement) -> Outcomes | None:
        """Return whether each of these answers is a refusal."""
        near = run.near_training(str(row.task)) or {}
        return self._outcomes(run, row.variant, str(row.task), str(row.judge), near)

    def groups(self, run: Evidence, row: Measurement) -> Groups | None:
        """Return the group of near-duplicates of each answer's prompt."""
        return run.groups(str(row.task), row.variant)

    def prompts(self, run: Evidence, row: Measurement) -> Prompts | None:
        """Return the prompt of each answer, where a prompt has several."""
        return run.prompts(row.variant, str(row.task))

    def _outcomes(
        self, run: Evidence, variant: str, task: str, judge: str, near: Mapping[str, bool]
    ) -> Outcomes:
        outcomes = run.outcomes(variant, task, judge, "refusal")
        return {id: outcome for id, outcome in outcomes.items() if near.get(id) == self.near}

    def compare(self, run: Evidence, row: Measurement, other: Measurement) -> Tested | None:
        """Test nothing: it describes the rate of the whole task."""
        return None


NEAR_TRAINING = RefusalBySimilarity("refusal_near_training", "refusal near training prompts", near=True)
FAR_FROM_TRAINING = RefusalBySimilarity(
    "refusal_far_from_training", "refusal far from training prompts", near=False
)
