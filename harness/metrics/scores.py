"""Means of scores that are not only 0 or 1, with Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from harness.metrics.interval import Interval

# Spreads below this share of the largest score are rounding error.
_ROUNDING = 1e-12


class MeanAndError(NamedTuple):
    """The mean of some scores, and its standard error: None where the scores show no spread to take it from."""

    mean: float
    error: float | None


def mean_and_error(scores: Sequence[float]) -> MeanAndError:
    """Return the mean of one score or more, and its standard error."""
    n = len(scores)
    mean = math.fsum(scores) / n
    if max(scores) - min(scores) <= _ROUNDING * max(1.0, *map(abs, scores)):
        return MeanAndError(mean, None)
    return MeanAndError(mean, math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / (n - 1) / n))


def mean_interval(scores: Sequence[float], level: float = 0.95) -> Interval | None:
    """Return the mean of scores with its two-sided t interval.

    Its lower end alone is a bound with (1 - level) / 2 error, so a one-sided bound at .05 takes a level of .90.

    Args:
        scores: one per item; of two variants, one difference per item.
        level: the confidence level.

    Returns:
        None where no spread was seen: an interval of width 0 would claim what a few equal scores cannot show.
    """
    from scipy.stats import t

    if not scores:
        return None
    mean, error = mean_and_error(scores)
    if error is None:
        return None
    reach = float(t.ppf((1 + level) / 2, len(scores) - 1)) * error
    return Interval(value=mean, low=mean - reach, high=mean + reach)
