"""A judge beside people's labels: accuracy, sensitivity, specificity and kappa, each with its interval.

Several answers to a prompt, as of several models, are no independent evidence: intervals and tests are over groups then
(harness/metrics/clustered.py).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from harness.metrics.clustered import clustered_difference, clustered_share, mean_and_error
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
    def precision(self) -> Interval | None:
        """The share of true ones among those that it calls positive (Wilson); None where it calls none so."""
        called = self.cells.found + self.cells.excess
        return wilson(self.cells.found, called) if called else None


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


class Figures(NamedTuple):
    """How a judge does on some answers; None where nothing tells.

    Attributes:
        accuracy: the share of verdicts that are right.
        sensitivity: the share of positives that the judge recognises.
        specificity: the share of negatives that it recognises.
        precision: the share of true ones among those that it calls positive.
        kappa: Cohen's; None where either gave one label throughout.
        clusters: how many groups the answers are in; None where each answer is one of its own.
    """

    accuracy: Interval | None
    sensitivity: Interval | None
    specificity: Interval | None
    precision: Interval | None
    kappa: Interval | None
    clusters: int | None


def figures(
    verdicts: Sequence[AnyLabel | None],
    labels: Sequence[AnyLabel],
    groups: Sequence[Hashable],
    *,
    of_harm: bool = False,
) -> Figures:
    """Return how verdicts agree with people's labels, with intervals over groups of answers.

    Args:
        verdicts: the judge's; None where unscored, which is in no figure.
        labels: people's.
        groups: the group of each answer: answers to one prompt, or to near-duplicates, are no independent evidence.
        of_harm: whether both are harmful or harmless, rather than refusal or compliance.
    """
    positive = "harmful" if of_harm else "refusal"
    scored = [row for row in zip(verdicts, labels, groups, strict=True) if row[0] is not None]

    def right(rows: Sequence[tuple[AnyLabel | None, AnyLabel, Hashable]]) -> Interval | None:
        return share([verdict == label for verdict, label, _ in rows], [group for *_, group in rows])

    distinct = len({group for *_, group in scored})
    return Figures(
        accuracy=right(scored),
        sensitivity=right([row for row in scored if row[1] == positive]),
        specificity=right([row for row in scored if row[1] != positive]),
        precision=right([row for row in scored if row[0] == positive]),
        kappa=_kappa(
            [verdict == positive for verdict, *_ in scored],
            [label == positive for _, label, _ in scored],
            [group for *_, group in scored],
        ),
        clusters=distinct if distinct < len(scored) else None,
    )


def share(successes: Sequence[bool], groups: Sequence[Hashable]) -> Interval | None:
    """Return a share with its interval over groups, Wilson's where each answer is one of its own; None of nothing."""
    if len(set(groups)) < len(successes):
        return clustered_share(successes, groups)
    return wilson(sum(successes), len(successes)) if successes else None


def _kappa(called: Sequence[bool], labelled: Sequence[bool], groups: Sequence[Hashable]) -> Interval | None:
    """Return Cohen's kappa with its interval, linearised over groups.

    For groups of one answer this is the asymptotic variance of Fleiss, Cohen and Everitt (Psychological Bulletin 72
    (1969) 323) times G / (G - 1), with the quantile of t.
    """
    import numpy as np
    from scipy.stats import t

    call, label = np.asarray(called, dtype=np.float64), np.asarray(labelled, dtype=np.float64)
    if len(set(called)) < 2 or len(set(labelled)) < 2:
        return None
    distinct = len(set(groups))
    agree = (call == label).astype(np.float64)
    by_chance = call.mean() * label.mean() + (1 - call.mean()) * (1 - label.mean())
    kappa = float((agree.mean() - by_chance) / (1 - by_chance))
    if distinct < 2:
        return Interval(value=kappa, low=-1.0, high=1.0)
    # How agreement by chance changes with each answer's verdict and label.
    chance = (2 * label.mean() - 1) * call + (2 * call.mean() - 1) * label
    influence = (agree - (1 - kappa) * chance) / (1 - by_chance)
    reach = float(t.ppf(0.975, distinct - 1)) * mean_and_error([*influence], groups)[1]
    return Interval(value=kappa, low=max(kappa - reach, -1.0), high=min(kappa + reach, 1.0))


class Departure(BaseModel):
    """A part of the answers on which a judge errs more than on the rest."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    part: str
    """Its name."""
    figure: str
    """Sensitivity or specificity."""
    inside: float
    """Its value on the part."""
    outside: float
    """Its value on the rest."""
    n: int = Field(ge=0)
    """The part's answers that it is of."""
    p_adjusted: float
    """The test of part and rest, by Holm over all parts and both figures."""


class Verdicts(NamedTuple):
    """Scored answers.

    Attributes:
        right: whether the judge agrees with people, by answer.
        positive: whether people call it positive.
        part: which part of the answers it is in; "" where in none, and then in no test.
        group: of answers to one prompt, or to near-duplicates.
    """

    right: Sequence[bool]
    positive: Sequence[bool]
    part: Sequence[str]
    group: Sequence[Hashable]


def departures(answers: Verdicts, level: float = 0.05) -> list[Departure]:
    """Return the parts on which a judge errs more than on the rest, the most certain and then the worst first.

    Part and rest are compared by Fisher's exact test where each answer is the only one of its group. Else the test is
    over groups (`clustered_difference`): it assumes that groups are independent, and nothing of answers within one,
    whether they are in one part (categories of prompts) or in several (models that answer the same prompts).

    Args:
        answers: scored ones.
        level: of the family of all parts and both figures.
    """
    tested = []
    for figure, is_positive in (("sensitivity", True), ("specificity", False)):
        rows = [row for row in zip(*answers, strict=True) if row[1] == is_positive and row[2]]
        right, groups = [bool(row[0]) for row in rows], [row[3] for row in rows]
        for name in dict.fromkeys(row[2] for row in rows):
            inside = [row[2] == name for row in rows]
            good, n = sum(a and b for a, b in zip(right, inside, strict=True)), sum(inside)
            rest, n_rest = sum(right) - good, len(rows) - n
            if n_rest:
                p = _p_of(right, inside, groups)
                tested.append((name, figure, good / n, rest / n_rest, n, p))
    adjusted = adjust([row[-1] for row in tested])
    found = [
        Departure(part=part, figure=figure, inside=inside, outside=outside, n=n, p_adjusted=p)
        for (part, figure, inside, outside, n, _), p in zip(tested, adjusted, strict=True)
        if p is not None and p < level and inside < outside
    ]
    return sorted(found, key=lambda each: (each.p_adjusted, each.inside))


def _p_of(right: Sequence[bool], inside: Sequence[bool], groups: Sequence[Hashable]) -> float:
    import numpy as np
    from scipy.stats import fisher_exact

    if len(set(groups)) < len(groups):
        return clustered_difference([float(each) for each in right], inside, groups)
    table = np.zeros((2, 2), dtype=np.int64)
    for is_right, is_inside in zip(right, inside, strict=True):
        table[int(is_inside), int(is_right)] += 1
    return float(fisher_exact(table).pvalue)
