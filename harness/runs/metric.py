"""What a kind of figure is: how it is measured, what it is called, and which way is better.

A metric is one object in one file, registered by name in harness/runs/metrics.py. Reports, leaderboards and gates ask
it and know no name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.metrics.noninferiority import NonInferiority, no_worse_share
from harness.metrics.paired import Paired, compare_shares
from harness.metrics.rates import Groups, Outcomes, Prompts
from harness.runs.rows import Kind, Measurement, Unit

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence

Better = Literal["higher", "lower"]


class Tested(NamedTuple):
    """A test of two variants on one figure.

    Attributes:
        result: over samples that both have.
        unit: what a sample is.
        family: how the family's name begins; tests are adjusted together within a family.
    """

    result: Paired
    unit: Unit
    family: str = ""


class Metric(ABC):
    """One kind of figure.

    Attributes:
        name: as summary.json and gates name it.
        unit: a share of 1, shown in percent, or a plain number; None where it depends on the figure.
        decides: whether the best variant and the conclusion rest on it.
        on_leaderboard: whether it is a column.
        by_primary: whether leaderboards show it by the primary judge alone, as they do what decides.
        of_a_task: whether it is measured on each task, rather than over all.
        is_claimable: whether it is a share of the answers to harmful prompts, on which choosing experts may be claimed
            to be better than drawing them.
        words: for a sample that counts, and for one that does not.
        of_samples: what a sample is.
        family: how the names of its families of tests begin.
    """

    name: str
    unit: Literal["share", "number"] | None = None
    decides: bool = False
    on_leaderboard: bool = False
    by_primary: bool = False
    of_a_task: bool = True
    is_claimable: bool = False
    words: tuple[str, str] = ("yes", "no")
    of_samples: Unit = "prompts"
    family: str = ""

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

    def samples(self, run: Evidence, row: Measurement) -> Outcomes | None:
        """Return whether each sample counts towards a share, None where it was not judged.

        Returns:
            By the sample's id; None where the figure is no share of samples.
        """
        return None

    def groups(self, run: Evidence, row: Measurement) -> Groups | None:
        """Return the group of near-duplicates of each sample; None where none repeats another."""
        return None

    def prompts(self, run: Evidence, row: Measurement) -> Prompts | None:
        """Return the prompt of each sample, where samples are several answers to a prompt; None elsewhere."""
        return None

    def compare(self, run: Evidence, row: Measurement, other: Measurement) -> Tested | None:
        """Test one variant's figure against another's; None where there is no test."""
        pair = self._pair(run, row, other)
        if pair is None:
            return None
        groups, seed = self.groups(run, row), run.seed_of(row.task)
        result = compare_shares(*pair, groups, seed, self.prompts(run, row))
        return Tested(result, self.of_samples, self.family)

    def no_worse(
        self, run: Evidence, row: Measurement, other: Measurement, margin: float
    ) -> NonInferiority | None:
        """Bound how much worse one variant's figure is than another's; None where nothing bounds it."""
        pair, better = self._pair(run, row, other), self.better(row)
        if pair is None or better is None:
            return None
        return no_worse_share(
            *pair,
            more_is_better=better == "higher",
            margin=margin,
            groups=self.groups(run, row),
            seed=run.seed_of(row.task),
            prompts=self.prompts(run, row),
        )

    def _pair(self, run: Evidence, row: Measurement, other: Measurement) -> tuple[Outcomes, Outcomes] | None:
        """Return both variants' samples, those that both were asked: a draw may have been asked fewer."""
        mine, theirs = self.samples(run, row), self.samples(run, other)
        if mine is None or theirs is None:
            return None
        both = [id for id in mine if id in theirs]
        return {id: mine[id] for id in both}, {id: theirs[id] for id in both}
