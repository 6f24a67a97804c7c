"""Means over grouped samples, and their cluster-robust covariances: the one place where groups' errors are added up.

A mean is a ratio of sums, linearised (Cochran, Sampling Techniques, 3rd ed. 1977, section 6.4); for weights of 1 its
variance is that of Liang and Zeger (Biometrika 73 (1986) 13) with the factor G / (G - 1) of G groups. What samples of a
group do is added up before it is squared, so near-duplicates and matched pairs are no independent samples.

Shapes: N samples, X figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Groups = npt.NDArray[Any]


class Mean(NamedTuple):
    """Ratios of sums over grouped samples.

    Attributes:
        value: [X].
        errors: [N, X], what each sample adds to the error.
        groups: [N], the group of each sample.
        n_groups: how many there are.
    """

    value: Floats
    errors: Floats
    groups: Groups
    n_groups: int


def mean_of(sums: Floats, weight: Floats, groups: Groups) -> Mean:
    """Return the sum of the samples' figures over that of their weights.

    Args:
        sums: [N, X], the figures.
        weight: [N], above 0.
        groups: [N], two different ones or more.
    """
    import numpy as np

    total = weight.sum()
    value = sums.sum(axis=0) / total
    n_groups = len(np.unique(groups))
    # The usual correction for the degree of freedom that the mean takes.
    scale = np.sqrt(n_groups / (n_groups - 1)) / total
    return Mean(value, (sums - weight[:, None] * value) * scale, groups, n_groups)


def covariance(one: Sequence[tuple[Mean, float]], other: Sequence[tuple[Mean, float]]) -> Floats:
    """Return the covariance of two weighted sums of means, [X]; samples of one group go together wherever they are."""
    import numpy as np

    labels = np.unique(np.concatenate([mean.groups for mean, _ in (*one, *other)]))

    def by_group(parts: Sequence[tuple[Mean, float]]) -> Floats:
        sums = np.zeros((len(labels), parts[0][0].value.size))
        for mean, sign in parts:
            np.add.at(sums, np.searchsorted(labels, mean.groups), sign * mean.errors)
        return sums

    added: Floats = (by_group(one) * by_group(other)).sum(axis=0)
    return added
