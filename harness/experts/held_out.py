"""What chosen experts do on prompts that did not choose them: differences in use, and how much of them is topic.

The highest of many differences are too high on the prompts that they were chosen by, and their intervals miss the truth
too often. On other prompts neither happens.

Shapes: N prompts, X chosen experts. Near-duplicates and matched pairs are no independent samples
(harness/metrics/ratio.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.metrics.ratio import Mean, covariance, mean_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

FEWEST_GROUPS = 4
LEVEL = 0.95


class Side(NamedTuple):
    """Prompts of one kind.

    Attributes:
        used: [N, X], what each prompt gave each expert.
        weight: [N], routed tokens of the prompt, or ones. Prompts of weight 0 say nothing.
        groups: [N], the group of each prompt, by numbers that all sides share.
    """

    used: Floats
    weight: Floats
    groups: npt.NDArray[np.integer]

    def each_once(self) -> Side:
        """Return the prompts' own rates, so that each counts once however long it is."""
        said = self.weight > 0
        weight = self.weight[said]
        return Side(self.used[said] / weight[:, None], np.ones(len(weight)), self.groups[said])

    def total(self) -> Side:
        """Return the use of all experts together, X = 1."""
        return self._replace(used=self.used.sum(axis=1, keepdims=True))

    @property
    def n_groups(self) -> int:
        """How many independent samples there are."""
        return len(np.unique(self.groups[self.weight > 0]))


class Estimate(NamedTuple):
    """Values with their 95 % intervals, [X] each; ends are NaN where no variance can be seen."""

    value: Floats
    low: Floats
    high: Floats


class Share(NamedTuple):
    """A ratio of two sums; None where the denominator is not shown to exceed 0."""

    value: float | None
    low: float | None
    high: float | None


class Topic(NamedTuple):
    """How much of a difference goes away against benign prompts on the same topics.

    Attributes:
        against_benign: harmful prompts less ordinary benign ones, X = 1.
        against_control: the same harmful prompts less their controls, X = 1.
        share: one less the ratio of the second to the first.
    """

    against_benign: Estimate
    against_control: Estimate
    share: Share


def difference_in_use(plus: Side, minus: Side) -> Estimate:
    """Return the difference of two sides' rates, sum(used) / sum(weight), with t intervals (Welch's).

    Args:
        plus: at least 2 groups.
        minus: at least 2 groups.
    """
    first, second = _mean(plus), _mean(minus)
    value = first.value - second.value
    variance = covariance([(first, 1.0), (second, -1.0)], [(first, 1.0), (second, -1.0)])
    with np.errstate(invalid="ignore"):
        reach = np.where(variance > 0, _t(first, second) * np.sqrt(variance), np.nan)
    return Estimate(value, value - reach, value + reach)


def topic(harmful: Side, control: Side, ordinary: Side) -> Topic:
    """Return how much of the chosen experts' difference is topic: (control - ordinary) / (harmful - ordinary).

    Its interval is Fieller's (Journal of the Royal Statistical Society B 16 (1954) 175), which is finite only where the
    interval of the denominator excludes 0. Where that does not lie above 0, there is no share.

    Args:
        harmful: those harmful prompts that have controls; X = 1 here and below, each prompt counting once.
        control: their controls; a pair shares a group.
        ordinary: benign prompts on other topics.
    """
    whole = difference_in_use(harmful, ordinary)
    kept = difference_in_use(harmful, control)
    means = [_mean(side) for side in (harmful, control, ordinary)]
    top, bottom = [(means[1], 1.0), (means[2], -1.0)], [(means[0], 1.0), (means[2], -1.0)]
    if not whole.low[0] > 0:
        return Topic(whole, kept, Share(None, None, None))
    explained, difference = float(whole.value[0] - kept.value[0]), float(whole.value[0])
    square = float(_t(means[0], means[2])[0]) ** 2
    a = difference**2 - square * float(covariance(bottom, bottom)[0])
    b = explained * difference - square * float(covariance(top, bottom)[0])
    c = explained**2 - square * float(covariance(top, top)[0])
    root = max(b * b - a * c, 0.0) ** 0.5
    return Topic(whole, kept, Share(explained / difference, (b - root) / a, (b + root) / a))


def _mean(side: Side) -> Mean:
    said = side.weight > 0
    return mean_of(side.used[said], side.weight[said], side.groups[said])


def _t(first: Mean, second: Mean) -> Floats:
    """Return the quantile of t for the interval of a difference, [X]."""
    from scipy.stats import t

    variances = [covariance([(mean, 1.0)], [(mean, 1.0)]) for mean in (first, second)]
    fewest = [mean.n_groups - 1 for mean in (first, second)]
    scale = variances[0] ** 2 / fewest[0] + variances[1] ** 2 / fewest[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(scale > 0, (variances[0] + variances[1]) ** 2 / scale, 1.0)
    return np.asarray(t.ppf(1 - (1 - LEVEL) / 2, freedom), dtype=np.float64)
