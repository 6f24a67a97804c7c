"""A judge beside people's labels: accuracy, sensitivity, specificity and kappa, each with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from harness.metrics.interval import Interval
from harness.metrics.paired import adjust
from harness.metrics.rates import AnyLabel, wilson


class Cells(NamedTuple):
    """How verdicts and people's labels agree, in answers; positive is refusal or harmful.

    Attributes:
        found: positives called so.
        missed: positives called negative.
        cleared: negatives called so.
        excess: negatives called positive.
    """

    found: int
    missed: int
    cleared: int
    excess: int


class Counts(BaseModel):
    """How verdicts and people's labels agree, in answers; what the judge left unscored is in none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @property
    def cells(self) -> Cells:
        """The four counts by their meaning."""
        raise NotImplementedError

    @property
    def scored(self) -> int:
        """All answers."""
        return sum(self.cells)

    @property
    def accuracy(self) -> Interval | None:
        """The share of verdicts that are right (Wilson); None without any."""
        return share(self.cells.found + self.cells.cleared, self.scored)

    @property
    def sensitivity(self) -> Interval | None:
        """The share of positives that the judge recognises; None without positives."""
        return share(self.cells.found, self.cells.found + self.cells.missed)

    @property
    def specificity(self) -> Interval | None:
        """The share of negatives that it recognises; None without negatives."""
        return share(self.cells.cleared, self.cells.cleared + self.cells.excess)

    @property
    def precision(self) -> Interval | None:
        """The share of true ones among those that it calls positive; None where it calls none so."""
        return share(self.cells.found, self.cells.found + self.cells.excess)

    @property
    def kappa(self) -> Interval | None:
        """Cohen's kappa with its asymptotic interval; None where either gave one label throughout."""
        from statsmodels.stats.inter_rater import cohens_kappa

        found, missed, cleared, excess = self.cells
        if 0 in (found + missed, cleared + excess, found + excess, missed + cleared):
            return None
        result = cohens_kappa([[found, missed], [excess, cleared]])
        low, high = float(result.kappa_low), float(result.kappa_upp)
        if not (math.isfinite(low) and math.isfinite(high)):
            return None
        return Interval(value=float(result.kappa), low=max(low, -1.0), high=min(high, 1.0))


class Confusion(Counts):
    """Of a judge of refusal."""

    refusal_found: int = Field(ge=0)
    refusal_missed: int = Field(ge=0)
    compliance_found: int = Field(ge=0)
    compliance_missed: int = Field(ge=0)

    @property
    def cells(self) -> Cells:
        """Positive is refusal."""
        return Cells(self.refusal_found, self.refusal_missed, self.compliance_found, self.compliance_missed)


class HarmConfusion(Counts):
    """Of a judge of harmfulness."""

    harmful_found: int = Field(ge=0)
    harmful_missed: int = Field(ge=0)
    harmless_found: int = Field(ge=0)
    harmless_missed: int = Field(ge=0)

    @property
    def cells(self) -> Cells:
        """Positive is harmful."""
        return Cells(self.harmful_found, self.harmful_missed, self.harmless_found, self.harmless_missed)


def confusion(
    verdicts: Sequence[AnyLabel | None], labels: Sequence[AnyLabel], *, of_harm: bool = False
) -> Confusion | HarmConfusion:
    """Count how verdicts agree with people's labels, answer by answer.

    Args:
        verdicts: the judge's; None where unscored.
        labels: people's.
        of_harm: whether both are harmful or harmless, rather than refusal or compliance.
    """
    pairs = [(label, verdict) for verdict, label in zip(verdicts, labels, strict=True) if verdict is not None]

    def count(label: AnyLabel, verdict: AnyLabel) -> int:
        return pairs.count((label, verdict))

    if of_harm:
        return HarmConfusion(
            harmful_found=count("harmful", "harmful"),
            harmful_missed=count("harmful", "harmless"),
            harmless_found=count("harmless", "harmless"),
            harmless_missed=count("harmless", "harmful"),
        )
    return Confusion(
        refusal_found=count("refusal", "refusal"),
        refusal_missed=count("refusal", "compliance"),
        compliance_found=count("compliance", "compliance"),
        compliance_missed=count("compliance", "refusal"),
    )


class Departure(NamedTuple):
    """A part of the answers on which a judge errs more than on the rest.

    Attributes:
        part: its name.
        figure: sensitivity or specificity.
        inside: its value on the part.
        outside: its value on the rest.
        n: the part's answers that it is of.
        p_adjusted: Fisher's exact test of part and rest, by Holm over all parts and both figures.
    """

    part: str
    figure: str
    inside: float
    outside: float
    n: int
    p_adjusted: float


def departures(parts: Mapping[str, Cells], level: float = 0.05) -> list[Departure]:
    """Return the parts on which a judge errs more than on the rest, the most certain and then the worst first.

    Args:
        parts: counts of disjoint parts of the answers.
        level: of the family of all parts and both figures.
    """
    import numpy as np
    from scipy.stats import fisher_exact

    tested = []
    for figure, at in (("sensitivity", 0), ("specificity", 2)):
        right = {
            name: (cells[at], cells[at + 1]) for name, cells in parts.items() if cells[at] + cells[at + 1]
        }
        totals = [sum(pair[side] for pair in right.values()) for side in (0, 1)]
        for name, (good, bad) in right.items():
            rest = (totals[0] - good, totals[1] - bad)
            if sum(rest):
                p = float(fisher_exact(np.array([[good, bad], rest])).pvalue)
                tested.append((name, figure, good / (good + bad), rest[0] / sum(rest), good + bad, p))
    adjusted = adjust([p for *_, p in tested])
    found = [
        Departure(*row[:-1], p_adjusted=p)
        for row, p in zip(tested, adjusted, strict=True)
        if p is not None and p < level and row[2] < row[3]
    ]
    return sorted(found, key=lambda each: (each.p_adjusted, each.inside))


def share(successes: int, n: int) -> Interval | None:
    """Return a share with Wilson's interval; None of nothing."""
    return wilson(successes, n) if n else None
