"""Rates and differences where prompts repeat one another: near-duplicates are no independent evidence.

Variances are cluster-robust (Liang and Zeger 1986), as statsmodels computes them. A rate's interval is Wilson's for the
number of independent prompts that would give the same variance (Kish's effective sample size; Korn and Graubard 1998
use it so), at most as many as there are groups when the rate is 0 or 1 and no variance can be seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

# Variances below this are rounding error.
_NOTHING = 1e-20


class Clustered(NamedTuple):
    """The interval of a share or of a paired difference over groups of samples.

    Attributes:
        low: its lower end.
        high: its upper end.
        groups: how many there are.
        p_value: of a difference, two-sided.
    """

    low: float
    high: float
    groups: int
    p_value: float | None = None


def clustered_rate(successes: Sequence[bool], groups: Sequence[int]) -> Clustered | None:
    """Return the interval of a share over grouped samples; None without a sample.

    Args:
        successes: one per sample.
        groups: the group of each.
    """
    from statsmodels.stats.proportion import proportion_confint

    n, distinct = len(successes), len(set(groups))
    if not n:
        return None
    share = sum(successes) / n
    simple = share * (1 - share) / n
    effective = float(distinct)
    if simple > 0 and distinct > 1:
        variance = _mean_and_variance([float(each) for each in successes], groups)[1]
        # More than n would say that repeating prompts helps.
        effective = min(n * simple / variance, n) if variance > _NOTHING else float(n)
    low, high = proportion_confint(share * effective, effective, alpha=0.05, method="wilson")
    return Clustered(min(float(low), share), max(float(high), share), distinct)


def clustered_difference(differences: Sequence[int], groups: Sequence[int]) -> Clustered | None:
    """Return the interval and test of a mean paired difference over grouped pairs.

    The test is a t-test with one degree of freedom less than there are groups; None with fewer than two groups, or
    where every group differs alike and no variance can be estimated.

    Args:
        differences: of each pair, one less the other: -1, 0 or 1.
        groups: the group of each.
    """
    from scipy.stats import t

    distinct = len(set(groups))
    if distinct < 2:
        return None
    mean, variance = _mean_and_variance([float(each) for each in differences], groups)
    if variance <= _NOTHING:
        return None
    error = variance**0.5
    reach = float(t.ppf(0.975, distinct - 1)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, distinct - 1))
    return Clustered(max(mean - reach, -1.0), min(mean + reach, 1.0), distinct, p_value)


def _mean_and_variance(values: Sequence[float], groups: Sequence[int]) -> tuple[float, float]:
    import numpy as np
    from statsmodels.regression.linear_model import OLS

    with warnings.catch_warnings():
        # A perfect fit, where all values are equal, shows by its variance of 0.
        warnings.simplefilter("ignore")
        fit = OLS(np.asarray(values), np.ones(len(values))).fit(
            cov_type="cluster", cov_kwds={"groups": np.asarray(groups), "use_correction": True}
        )
    return float(fit.params[0]), float(fit.cov_params()[0, 0])
