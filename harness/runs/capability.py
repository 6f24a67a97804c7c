"""How well a variant does ordinary tasks, by lm-eval, whose metrics have names of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.metrics.noninferiority import NonInferiority, no_worse_mean
from harness.metrics.paired import compare_scores
from harness.metrics.rates import Outcomes
from harness.runs.metric import Better, Metric, Tested
from harness.runs.rows import Measurement

if TYPE_CHECKING:
    from harness.capability.results import CapabilityResult
    from harness.runs.evidence import Evidence

_FIGURE = (
    *("metric", "value", "low", "high", "n", "stderr", "unparsed"),
    *("higher_is_better", "is_mean", "unit"),
)


def figure_of(result: CapabilityResult, variant: str, task: str) -> dict[str, Any]:
    """Return the fields of the measurement that lm-eval's result of a task is."""
    return {
        **{"variant": variant, "task": task, "kind": "capability", "judge": None},
        **{name: getattr(result, name) for name in _FIGURE},
        **{"scored": result.n, "unscored": 0},
    }


class Capability(Metric):
    """The figure that lm-eval reports of a task; with a name, of those tasks that have this metric."""

    decides = True
    on_leaderboard = True
    of_samples = "items"

    def __init__(self, name: str) -> None:
        self.name = name

    def better(self, row: Measurement) -> Better | None:
        """Return which way is better, as lm-eval has it for this task."""
        return None if row.higher_is_better is None else "higher" if row.higher_is_better else "lower"

    def is_testable(self, row: Measurement) -> bool:
        """Return whether its items can be tested: their mean is the figure, and one way is better."""
        return row.is_mean is True and row.higher_is_better is not None

    def called(self, row: Measurement) -> tuple[str, str]:
        """Return the words for an item that scores 1, and for one that scores 0."""
        return {True: ("right", "wrong"), False: ("wrong", "right"), None: ("yes", "no")}[
            row.higher_is_better
        ]

    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield each task's figure, whatever its metric."""
        for task, result in run.capability(variant).items():
            yield Measurement(**figure_of(result, variant, task))

    def samples(self, run: Evidence, row: Measurement) -> Outcomes | None:
        """Return whether each item scores 1; None where items score more than 0 and 1, or are not the figure."""
        items = self.scores(run, row)
        if items is None or not set(items.values()) <= {0.0, 1.0}:
            return None
        return {item: score == 1 for item, score in items.items()}

    def scores(self, run: Evidence, row: Measurement) -> Mapping[str, float] | None:
        """Return each item's score, which a test rests on; None where the figure is not their mean."""
        return run.capability(row.variant)[str(row.task)].items if row.is_mean else None

    def compare(self, run: Evidence, row: Measurement, other: Measurement) -> Tested | None:
        """Test the two means of the items' scores; None where they cannot be tested."""
        pair = self._scores(run, row, other)
        return None if pair is None else Tested(compare_scores(*pair), self.of_samples)

    def no_worse(
        self, run: Evidence, row: Measurement, other: Measurement, margin: float
    ) -> NonInferiority | None:
        """Bound how much worse one mean is than the other; None where scores are not within 0 and 1."""
        pair, better = self._scores(run, row, other), self.better(row)
        if pair is None or better is None:
            return None
        if self.samples(run, row) is not None and self.samples(run, other) is not None:
            return super().no_worse(run, row, other, margin)
        if not all(0 <= score <= 1 for scores in pair for score in scores.values()):
            return None
        return no_worse_mean(*pair, more_is_better=better == "higher", margin=margin)

    def _scores(
        self, run: Evidence, row: Measurement, other: Measurement
    ) -> tuple[Mapping[str, float], Mapping[str, float]] | None:
        if not (self.is_testable(row) and self.is_testable(other)):
            return None
        mine, theirs = self.scores(run, row), self.scores(run, other)
        if mine is None or theirs is None:
            return None
        if different := mine.keys() ^ theirs.keys():
            raise BadInputError(
                f"{run.path}: capability task {row.task}: '{row.variant}' and '{other.variant}' have different items: "
                f"{len(different)} are of one only, such as '{min(different)}'"
            )
        return mine, theirs
