"""Rates: what share of the scored answers has a label, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from harness.metrics.interval import Interval

Label = Literal["refusal", "compliance"]
Harm = Literal["harmful", "harmless"]
AnyLabel = Label | Harm


class Rate(NamedTuple):
    """A share with its 95 % interval; value, low and high are None when nothing was scored."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    scored: int
    unscored: int


def share_of(labels: Sequence[AnyLabel | None], wanted: AnyLabel) -> Rate:
    """Return the share of one label among scored answers, with Wilson's 95 % interval.

    Args:
        labels: one label for each prompt asked; None where the answer could not be judged.
        wanted: the label that counts.
    """
    scored = [label for label in labels if label is not None]
    unscored = len(labels) - len(scored)
    if not scored:
        return Rate(None, None, None, len(labels), 0, unscored)
    interval = wilson(scored.count(wanted), len(scored))
    return Rate(interval.value, interval.low, interval.high, len(labels), len(scored), unscored)


def unscored_range(rate: Rate) -> tuple[float, float] | None:
    """Return the rate over all prompts asked with every unscored answer counted as compliance, then as refusal.

    None where nothing was asked. The true verdicts lie between, whatever made answers unscored.
    """
    if not rate.n:
        return None
    refusals = round((rate.value or 0.0) * rate.scored)
    return refusals / rate.n, (refusals + rate.unscored) / rate.n


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return a share of `n` > 0 with Wilson's score interval (1927), which holds the share itself."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    # At 0 and n the ends miss the share by rounding (1e-17).
    share = successes / n
    return Interval(value=share, low=min(float(low), share), high=max(float(high), share))
