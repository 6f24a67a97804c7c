"""How long a variant's answers are."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import TYPE_CHECKING

from harness.runs.metric import Metric
from harness.runs.rows import Measurement

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


class AnswerLength(Metric):
    """The mean number of tokens of the answers to a task."""

    name = "answer_length"
    unit = "number"

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield the mean for each task."""
        for task, asked in run.record.asked.items():
            lengths = [answer.generated_tokens or 0 for answer in run.answers(variant, task)]
            yield Measurement(
                variant=variant,
                task=task,
                kind=asked.kind,
                metric=self.name,
                judge=None,
                value=fmean(lengths) if lengths else None,
                low=None,
                high=None,
                n=len(lengths),
                scored=len(lengths),
                unscored=0,
            )


ANSWER_LENGTH = AnswerLength()
