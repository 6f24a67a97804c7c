"""Exact one-sided tests of a share, and of the difference of two paired shares, with the bounds they give.

"Exact" means that where the claim is false, however nearly it is true, the test accepts it no more often than the
level says, at every sample size. Wilson's interval, which reports show, does not promise that: at some sizes its
one-sided error is twice the level.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# The p-value of a difference is a maximum over a nuisance parameter: places it is computed at, before refining.
_FEWEST_PLACES, _MOST_PLACES = 64, 400
# Binomial terms beyond this many standard deviations are left out, and their mass is added to the p-value.
_DEVIATIONS, _LEFT_OUT = 9.0, 1e-15
_TIES = 1e-9
_STEP = 1e-4
LARGEST_N = 100_000
"""Sample sizes are searched up to this."""


def share_p_value(successes: int, n: int, bound: float) -> float:
    """Return the p-value of "the share is below `bound`": P(at least `successes` of `n`) at the bound."""
    from scipy.stats import binom

    return float(binom.sf(successes - 1, n, bound))


def share_lower_bound(successes: int, n: int, level: float) -> float:
    """Return the one-sided lower bound of Clopper and Pearson (1934); `level` is the error, such as 0.05."""
    from scipy.stats import beta

    return float(beta.ppf(level, successes, n - successes + 1)) if successes else 0.0


def share_upper_bound(successes: int, n: int, level: float) -> float:
    """Return the one-sided upper bound of Clopper and Pearson (1934)."""
    return 1 - share_lower_bound(n - successes, n, level)


def difference_p_value(first_only: int, second_only: int, n: int, bound: float) -> float:
    """Return the p-value of "the first share exceeds the second by `bound` or less", of `n` pairs.

    At a bound of 0 it is McNemar's exact test, one-sided. At others it is the exact unconditional test of Hsueh,
    Liu and Chen, Unconditional exact tests for equivalence or noninferiority for paired binary endpoints,
    Biometrics 57 (2001) 478: outcomes are ordered by the score statistic of Tango, Statistics in Medicine 17
    (1998) 891, and the probability of one at least as extreme is maximised over the share of discordant pairs.

    Args:
        first_only: pairs where only the first succeeds.
        second_only: pairs where only the second does.
        n: all pairs.
        bound: a difference within -1 and 1.
    """
    if not n or not -1 < bound < 1:
        return 1.0
    if bound == 0:
        from scipy.stats import binom

        return float(binom.sf(first_only - 1, first_only + second_only, 0.5))
    import numpy as np
    from scipy.optimize import minimize_scalar

    fewest = _fewest_first_only(_score(np.array(first_only), np.array(second_only), n, bound), n, bound)
    low, high = max(0.0, -bound), (1 - bound) / 2

    def probability(angle: float) -> float:
        return _probability(low + (high - low) * math.sin(angle) ** 2, fewest, n, bound)

    # Evenly spaced in this scale, in which a binomial's standard deviation is about the same everywhere.
    places = int(min(max(20 * math.sqrt(n), _FEWEST_PLACES), _MOST_PLACES))
    angles = np.linspace(0.0, math.pi / 2, places)
    probabilities = [probability(angle) for angle in angles]
    best = int(np.argmax(probabilities))
    around = (angles[max(best - 1, 0)], angles[min(best + 1, places - 1)])
    refined = minimize_scalar(lambda angle: -probability(angle), bounds=around, method="bounded")
    return min(max(probabilities[best], -float(refined.fun)), 1.0)


def difference_lower_bound(first_only: int, second_only: int, n: int, level: float, claimed: float) -> float:
    """Return the lower confidence bound of a difference: the largest that `difference_p_value` rejects.

    Args:
        first_only: pairs where only the first succeeds.
        second_only: pairs where only the second does.
        n: all pairs.
        level: the error, such as 0.05.
        claimed: a difference that matters; the bound is at or above it exactly when the test says so.
    """

    def rejects(bound: float) -> bool:
        return difference_p_value(first_only, second_only, n, bound) <= level

    if rejects(claimed):
        return _bisect(rejects, claimed, max((first_only - second_only) / n, claimed))
    return _bisect(rejects, -1.0, claimed)


def smallest_n(proves: Callable[[int], bool]) -> int | None:
    """Return the smallest sample size that could prove something; None where none up to `LARGEST_N` could."""
    high = 1
    while not proves(high):
        high *= 2
        if high > LARGEST_N:
            return None
    smaller = range(high // 2 + 1, high)
    return high // 2 + 1 + bisect_left(smaller, True, key=proves)


def _bisect(rejects: Callable[[float], bool], low: float, high: float) -> float:
    """Return the last rejected difference: `low` counts as rejected and `high` does not."""
    while high - low > _STEP:
        middle = (low + high) / 2
        low, high = (middle, high) if rejects(middle) else (low, middle)
    return low


def _score(first_only: np.ndarray, second_only: np.ndarray, n: int, bound: float) -> np.ndarray:
    """Return Tango's score statistic; it grows with `first_only` and falls with `second_only`."""
    import numpy as np

    linear = (2 * n - first_only + second_only) * bound - first_only - second_only
    constant = -second_only * bound * (1 - bound)
    root = np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0))
    # The likeliest share of pairs where only the second succeeds, given the difference.
    second = (root - linear) / (4 * n)
    variance = n * (2 * second + bound * (1 - bound))
    score: np.ndarray = (first_only - second_only - n * bound) / np.sqrt(variance)
    return score


def _fewest_first_only(observed: np.ndarray, n: int, bound: float) -> np.ndarray:
    """Return for each number D of discordant pairs how many must be the first's to be as extreme, [n + 1]."""
    import numpy as np

    discordant = np.arange(n + 1)
    low, high = np.zeros(n + 1, dtype=np.int64), discordant + 1
    while (low < high).any():
        middle = (low + high) // 2
        # Where low meets high, the place in the middle is not looked at.
        asked = np.minimum(middle, discordant)
        extreme = _score(asked, discordant - asked, n, bound) >= observed - _TIES
        searching = low < high
        high = np.where(searching & extreme, middle, high)
        low = np.where(searching & ~extreme, middle + 1, low)
    return low


def _probability(second: float, fewest: np.ndarray, n: int, bound: float) -> float:
    """Return the probability of an outcome that is as extreme, when only the second succeeds that often."""
    import numpy as np
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    first = max(second + bound, 0.0)
    share = min(first + second, 1.0)
    if share <= 0:
        return float(fewest[0] == 0)
    reach = _DEVIATIONS * math.sqrt(n * share * (1 - share)) + _DEVIATIONS**2
    start, stop = max(math.floor(n * share - reach), 0), min(math.ceil(n * share + reach), n)
    count = np.arange(start, stop + 1)
    log_mass = gammaln(n + 1) - gammaln(count + 1) - gammaln(n - count + 1)
    mass = np.exp(log_mass + xlogy(count, share) + xlog1py(n - count, -share))
    needed = fewest[start : stop + 1]
    beyond = np.where(needed > 0, bdtrc(np.maximum(needed - 1, 0), np.maximum(count, 1), first / share), 1.0)
    return float(np.sum(mass * np.where(needed > count, 0.0, beyond))) + _LEFT_OUT
