"""What a kind of figure is: how it is measured, what it is called, and which way is better.

A metric is one object in one file, registered by name in harness/runs/metrics.py. Reports, leaderboards and gates ask
it and know no name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.metrics.paired import Comparison as Paired
from harness.runs.rows import Clustered, Kind, Measurement, Unit

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence

Better = Literal["higher", "lower"]


class Tested(NamedTuple):
    """A test of two variants on one figure.

    Attributes:
        result: over samples that both have.
        unit: what a sample is.
        family: how the family's name begins; tests are adjusted together within a family.
        clustered: the same over groups of near-duplicates, where there are any.
    """

    result: Paired
    unit: Unit
    family: str = ""
    clustered: Clustered | None = None


class Metric(ABC):
    """One kind of figure.

    Attributes:
        name: as summary.json and gates name it.
        unit: a share of 1, shown in percent, or a plain number; None where it depends on the figure.
        decides: whether the best variant and the conclusion rest on it.
        on_leaderboard: whether it is a column.
        of_a_task: whether it is measured on each task, rather than over all.
        is_proportion: whether it is a share of yes-or-no samples, so that its counts decide a bound exactly.
        words: for a sample that counts, and for one that does not.
    """

    name: str
    unit: Literal["share", "number"] | None = None
    decides: bool = False
    on_leaderboard: bool = False
    of_a_task: bool = True
    is_proportion: bool = False
    words: tuple[str, str] = ("yes", "no")

    def label(self, kind: Kind) -> str:
        """Return what a heading calls it."""
        return self.name

    def better(self, row: Measurement) -> Better | None:
        """Return which way is better; None where neither is."""
        return None

    def is_testable(self, row: Measurement) -> bool:
        """Return whether two variants' figures can be tested against each other; untested ones decide nothing."""
        return True

    def called(self, row: Measurement) -> tuple[str, str]:
        """Return the words for a sample that counts, and for one that does not."""
        return self.words

    @abstractmethod
    def measure(self, run: Evidence, variant: str) -> Iterator[Measurement]:
        """Yield a variant's figures."""

    def samples(self, run: Evidence, row: Measurement) -> Mapping[str, bool | None] | None:
        """Return whether each sample counts towards a share, None where it was not judged.

        Returns:
            By the sample's id; None where the figure is no share of samples.
        """
        return None

    def compare(self, run: Evidence, row: Measurement, other: Measurement) -> Tested | None:
        """Test one variant's figure against another's; None where there is no test."""
        return None
