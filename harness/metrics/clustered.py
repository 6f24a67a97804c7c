"""Shares and paired differences over prompts that repeat one another: near-duplicates are no independent evidence.

Everything takes the same partition: the group of each sample. Variances are cluster-robust (Liang and Zeger,
Biometrika 73 (1986) 13) with the factor G / (G - 1) of G groups, and quantiles are of Student's t with G - 1
degrees of freedom. Where no variance can be seen, or a bound or margin is to be decided exactly, one member of
each group stands for it (`one_per_group`): neither a majority vote nor an effective sample size keeps its level.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from harness.metrics.interval import Interval

Id = TypeVar("Id", bound=Hashable)

# Variances below this are rounding error.
_NOTHING = 1e-20


class ClusteredTest(NamedTuple):
    """A mean of grouped samples against 0.

    Attributes:
        mean: with its 95 % interval.
        p_value: two-sided, by the cluster-robust t.
        error: the standard error.
        groups: how many there are.
    """

    mean: Interval
    p_value: float
    error: float
    groups: int


def clustered_share(successes: Sequence[bool], groups: Sequence[int]) -> Interval | None:
    """Return the share of grouped samples with its interval; None without a sample.

    The interval is Wilson's for the number of independent samples that would give the same variance (Korn and Graubard,
    Survey Methodology 24 (1998) 193), at most as many as there are samples, with the quantile of t. Where all samples
    agree there are as many as groups.

    Args:
        successes: one per sample.
        groups: the group of each.
    """
    from scipy.stats import t

    n, distinct = len(successes), len(set(groups))
    if not n:
        return None
    share = sum(successes) / n
    independent = float(distinct)
    if 0 < share < 1 and distinct > 1:
        variance = mean_and_error([float(each) for each in successes], groups)[1] ** 2
        independent = min(share * (1 - share) / variance, n) if variance > _NOTHING else float(n)
    square = float(t.ppf(0.975, distinct - 1)) ** 2 if distinct > 1 else float("inf")
    if square == float("inf"):
        return Interval(value=share, low=0.0, high=1.0)
    scale = 1 + square / independent
    centre = (share + square / (2 * independent)) / scale
    reach = (square * (share * (1 - share) / independent + square / (4 * independent**2))) ** 0.5 / scale
    return Interval(
        value=share, low=min(max(centre - reach, 0.0), share), high=max(min(centre + reach, 1.0), share)
    )


def clustered_test(values: Sequence[float], groups: Sequence[int]) -> ClusteredTest | None:
    """Return the mean of grouped samples tested against 0.

    Returns:
        None with fewer than two groups, or where every group's mean is alike and no variance can be seen.
    """
    from scipy.stats import t

    distinct = len(set(groups))
    if distinct < 2:
        return None
    mean, error = mean_and_error(values, groups)
    if error**2 <= _NOTHING:
        return None
    reach = float(t.ppf(0.975, distinct - 1)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, distinct - 1))
    return ClusteredTest(Interval(value=mean, low=mean - reach, high=mean + reach), p_value, error, distinct)


def mean_and_error(values: Sequence[float], groups: Sequence[int]) -> tuple[float, float]:
    """Return the mean of samples in two groups or more and its cluster-robust standard error."""
    import numpy as np

    value = np.asarray(values, dtype=np.float64)
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    mean = float(value.mean())
    sums = np.bincount(group, weights=value - mean)
    variance = len(sums) / (len(sums) - 1) * float(sums @ sums) / len(value) ** 2
    return mean, variance**0.5


def one_per_group(groups: Mapping[Id, int], seed: int) -> list[Id]:
    """Return one member of each group, drawn without a look at any outcome, in the order given."""
    members: dict[int, list[Id]] = {}
    for id, group in groups.items():
        members.setdefault(group, []).append(id)
    drawing = random.Random(seed)
    drawn = {drawing.choice(each) for each in members.values()}
    return [id for id in groups if id in drawn]
