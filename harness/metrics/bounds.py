"""Exact one-sided tests of a share, and of the difference of two paired shares, with the bounds they give.

"Exact" means that where the claim is false, however nearly it is true, the test accepts it no more often than the
level says, at every sample size. Wilson's interval, which reports show, does not promise that: at some sizes its
one-sided error is twice the level.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# The p-value of a difference is a maximum over a nuisance parameter: places it is computed at, before refining.
_FEWEST_PLACES, _MOST_PLACES = 64, 400
# Places looked at around the best one, three times over.
_REFINING = 9
# Places that are computed at once: together they need the terms of the widest range.
_AT_ONCE = 8
# Binomial terms beyond this many standard deviations are left out, and their mass is added to the p-value.
_DEVIATIONS, _LEFT_OUT = 9.0, 1e-15
_TIES = 1e-9
_STEP = 1e-4
# How far the exact bound is from the one by the score statistic, mostly.
_NEAR = 0.004
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


@lru_cache(maxsize=65536)
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

    fewest = _fewest_first_only(_score(np.array(first_only), np.array(second_only), n, bound), n, bound)
    low, high = max(0.0, -bound), (1 - bound) / 2

    def probabilities(angles: np.ndarray) -> np.ndarray:
        return _probabilities(low + (high - low) * np.sin(angles) ** 2, fewest, n, bound)

    # Evenly spaced in this scale, in which a binomial's standard deviation is about the same everywhere.
    places = int(min(max(20 * math.sqrt(n), _FEWEST_PLACES), _MOST_PLACES))
    largest, start, stop = 0.0, 0.0, math.pi / 2
    for looked_at in (places, _REFINING, _REFINING, _REFINING):
        angles = np.linspace(start, stop, looked_at)
        reached = probabilities(angles)
        best = int(np.argmax(reached))
        largest = max(largest, float(reached[best]))
        start, stop = angles[max(best - 1, 0)], angles[min(best + 1, looked_at - 1)]
    return min(largest, 1.0)


@lru_cache(maxsize=4096)
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

    estimate = (first_only - second_only) / n
    low, high = (claimed, max(estimate, claimed)) if rejects(claimed) else (-1.0, claimed)
    near = _where_score_is(z_of(level), first_only, second_only, n)
    # The exact bound is close to the one by the score statistic, on either side of it.
    for step in (_NEAR, 4 * _NEAR):
        if low < near - step < high and rejects(near - step):
            low = near - step
        if low < near + step < high and not rejects(near + step):
            high = near + step
        if high - low <= 2 * step:
            break
    return _bisect(rejects, low, high)


def z_of(level: float) -> float:
    """Return the normal quantile that a one-sided test at this level takes."""
    from scipy.stats import norm

    return float(norm.ppf(1 - level))


def _where_score_is(value: float, first_only: int, second_only: int, n: int) -> float:
    """Return the difference at which Tango's score statistic, which falls with it, has a value."""
    low, high = -1 + _STEP, 1 - _STEP
    while high - low > _STEP / 10:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if tango_score(first_only, second_only, n, middle) >= value else (low, middle)
        )
    return low


def tango_score(first_only: int, second_only: int, n: int, bound: float) -> float:
    """Return Tango's score statistic of "the first share exceeds the second by `bound`", about normal where it does."""
    import numpy as np

    if first_only == second_only and bound == 0:
        return 0.0
    return float(_score(np.array(first_only), np.array(second_only), n, bound))


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


def _probabilities(seconds: np.ndarray, fewest: np.ndarray, n: int, bound: float) -> np.ndarray:
    """Return the probability of an outcome that is as extreme, for each share of pairs where only the second succeeds.

    Args:
        seconds: the shares [P], in order.
        fewest: how many discordant pairs must be the first's to be as extreme [n + 1].
        n: all pairs.
        bound: the difference between both shares.
    """
    import numpy as np

    blocks = [seconds[start : start + _AT_ONCE] for start in range(0, len(seconds), _AT_ONCE)]
    return np.concatenate([_block(block, fewest, n, bound) for block in blocks])


def _block(seconds: np.ndarray, fewest: np.ndarray, n: int, bound: float) -> np.ndarray:
    """Return `_probabilities` of a few shares at once."""
    import numpy as np
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    first = np.maximum(seconds + bound, 0.0)[:, None]
    share = np.minimum(first + seconds[:, None], 1.0)
    reach = _DEVIATIONS * np.sqrt(n * share * (1 - share)) + _DEVIATIONS**2
    start = max(math.floor((n * share - reach).min()), 0)
    stop = min(math.ceil((n * share + reach).max()), n)
    count = np.arange(start, stop + 1)
    log_mass = gammaln(n + 1) - gammaln(count + 1) - gammaln(n - count + 1)
    mass = np.exp(log_mass + xlogy(count, share) + xlog1py(n - count, -share))
    needed = fewest[start : stop + 1]
    of_first = np.divide(first, share, out=np.ones_like(share), where=share > 0)
    beyond = np.where(needed > 0, bdtrc(np.maximum(needed - 1, 0), np.maximum(count, 1), of_first), 1.0)
    reached: np.ndarray = (mass * np.where(needed > count, 0.0, beyond)).sum(axis=1) + _LEFT_OUT
    return reached
