"""How far a variant has moved from base on base's own answers to benign test prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.runs.metric import Better, Metric
from harness.runs.rows import Kind, Measurement, on_text

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


@dataclass(eq=False)
class DriftFigure(Metric):
    """One figure of drift.json.

    Attributes:
        name: of the metric and of the file's key.
        heading: what a heading calls it.
        has_interval: whether the file's interval is this figure's.
    """

    name: str
    heading: str
    has_interval: bool
    unit = "number"
    of_a_task = False

    def label(self, kind: Kind) -> str:
        """Return what a heading calls it."""
        return self.heading

    def better(self, row: Measurement) -> Better | None:
        """Return which way is better."""
        return "lower"

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield the figure, where drift was measured."""
        drift = run.drift(variant)
        if drift is None:
            return
        value, ends = getattr(drift, self.name), (drift.low, drift.high)
        yield on_text(
            variant,
            self.name,
            drift.answers,
            drift.tokens,
            value,
            *(ends if self.has_interval else (None, None)),
        )


# KL(base || variant) in nats per token; of the same answers, the variant's perplexity.
KL = DriftFigure("kl", "KL to base", has_interval=True)
PERPLEXITY = DriftFigure("perplexity", "perplexity", has_interval=False)
