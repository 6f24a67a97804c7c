"""A metric: how many words an answer has on average."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from harness.runs.evidence import Evidence
from harness.runs.metric import Metric
from harness.runs.rows import Measurement


class WordsPerAnswer(Metric):
    """The mean number of words of the answers to a task."""

    name = "example_words"
    unit = "number"

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield a variant's figure for each task."""
        for task, kind in run.tasks_of(variant).items():
            words = [len(answer.response.split()) for answer in run.answers(variant, task)]
            yield Measurement(
                variant=variant,
                task=task,
                kind=kind,
                metric=self.name,
                judge=None,
                value=fmean(words),
                low=None,
                high=None,
                n=len(words),
                scored=len(words),
                unscored=0,
            )


WORDS = WordsPerAnswer()
