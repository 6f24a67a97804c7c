"""How far a variant has moved from base on base's own answers to benign test prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from harness.runs.metric import Better, Metric
from harness.runs.rows import Kind, Measurement

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence


class DriftFigure(Metric):
    """One figure of drift.json.

    Args:
        name: of the metric and of the file's key.
        label: what a heading calls it.
        has_interval: whether the file's interval is this figure's.
    """

    unit = "number"
    of_a_task = False

    def __init__(self, name: Literal["kl", "perplexity"], label: str, *, has_interval: bool) -> None:
        self.name = name
        self._label = label
        self._has_interval = has_interval

    def label(self, kind: Kind) -> str:
        """Return what a heading calls it."""
        return self._label

    def better(self, kind: Kind) -> Better | None:
        """Return which way is better."""
        return "lower"

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield the figure, where drift was measured."""
        found = run.drift(variant)
        if found is None:
            return
        yield Measurement(
            variant=variant,
            task=None,
            kind="text",
            metric=self.name,
            judge=None,
            value=getattr(found, self.name),
            low=found.low if self._has_interval else None,
            high=found.high if self._has_interval else None,
            n=found.answers,
            scored=found.answers,
            unscored=0,
            tokens=found.tokens,
        )


# KL(base || variant) in nats per token; of the same answers, the variant's perplexity.
KL = DriftFigure("kl", "KL to base", has_interval=True)
PERPLEXITY = DriftFigure("perplexity", "perplexity", has_interval=False)
