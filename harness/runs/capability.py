"""How well a variant does ordinary tasks, by lm-eval, whose metrics have names of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.metrics.noninferiority import NonInferiority, no_worse_mean
from harness.metrics.paired import compare_scores
from harness.metrics.rates import Outcomes
from harness.runs.metric import Better, Metric, Tested
from harness.runs.rows import Kind, Measurement

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence

# lm-eval metrics where less is better; all others that the harness reports are shares of right answers.
_LESS_IS_BETTER = frozenset({"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"})
_FIGURE = ("metric", "value", "low", "high", "n", "stderr", "unparsed")


class Capability(Metric):
    """The figure that lm-eval reports of a task; with a name, of those tasks that have this metric."""

    decides = True
    on_leaderboard = True
    words = ("right", "wrong")
    of_samples = "items"

    def __init__(self, name: str) -> None:
        self.name = name
        self.unit = "number" if name in _LESS_IS_BETTER else None

    def better(self, kind: Kind) -> Better | None:
        """Return which way is better."""
        return "lower" if self.name in _LESS_IS_BETTER else "higher"

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield each task's figure, whatever its metric."""
        for task, result in run.capability(variant).items():
            yield Measurement(
                variant=variant,
                task=task,
                kind="capability",
                judge=None,
                **{name: getattr(result, name) for name in _FIGURE},
                scored=result.n,
                unscored=0,
            )

    def samples(self, run: Evidence, row: Measurement) -> Outcomes | None:
        """Return whether each item was answered rightly; None where items are more than right or wrong."""
        items = run.capability(row.variant)[str(row.task)].items
        if not items or not set(items.values()) <= {0.0, 1.0}:
            return None
        return {item: score == 1 for item, score in items.items()}

    def compare(self, run: Evidence, row: Measurement, other: Measurement) -> Tested | None:
        """Test the two means of the items' scores."""
        mine, theirs = (run.capability(each.variant)[str(row.task)].items for each in (row, other))
        return Tested(compare_scores(mine, theirs), "items")

    def no_worse(
        self, run: Evidence, row: Measurement, other: Measurement, margin: float
    ) -> NonInferiority | None:
        """Bound how much worse one mean is than the other; None where it is no share of 1."""
        if self.samples(run, row) is not None and self.samples(run, other) is not None:
            return super().no_worse(run, row, other, margin)
        mine, theirs = (run.capability(each.variant)[str(row.task)].items for each in (row, other))
        better = self.better(row.kind)
        if better is None or not all(0 <= score <= 1 for score in (*mine.values(), *theirs.values())):
            return None
        return no_worse_mean(mine, theirs, more_is_better=better == "higher", margin=margin)
