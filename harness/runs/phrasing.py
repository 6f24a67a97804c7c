"""Whether a trained variant's refusals only repeat the sentences of its training.

High recall of trained phrasings with refusals far from the held-out ones would mean that the judge recognises the
training text rather than a refusal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.runs.metric import Metric
from harness.runs.rows import Kind, Measurement, figure

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


@dataclass(eq=False)
class Phrasing(Metric):
    """One of the rates of `phrasing_rates`, over the refusals of a trained variant by the primary judge."""

    name: str
    unit = "share"

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield the rate of each task."""
        if not run.record.evaluated[variant].trained:
            return
        for task, kind in run.tasks_of(variant).items():
            rate = run.phrasing_rates(variant, task)[self.name]
            yield Measurement(
                variant=variant,
                task=task,
                kind=kind,
                metric=self.name,
                judge=run.primary,
                **figure(rate),
            )


class Verbatim(Phrasing):
    """The share of refusals that hold a training phrasing word for word."""

    def label(self, kind: Kind) -> str:
        """Return what a heading calls it."""
        return "refusals that repeat training"


VERBATIM = Verbatim("refusal_verbatim_trained")
LIKE_TRAINED = Phrasing("refusal_similarity_trained")
LIKE_HELD_OUT = Phrasing("refusal_similarity_held_out")
