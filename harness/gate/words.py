"""Gates and their results in words that say on which side of its limit a figure lies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.gate.schema import CLAIM, COUNTS, FROZEN, REFERENCE, Gate, Side
from harness.metrics.bounds import LARGEST_N
from harness.report.words import hundredths, number
from harness.runs.metrics import metric_of

if TYPE_CHECKING:
    from harness.gate.samples import Samples
    from harness.runs.rows import Measurement

_MOST_DIGITS = 8


def required(gate: Gate) -> str:
    """Return the bound of a gate."""
    if gate.metric == FROZEN:
        return "no frozen weight changed"
    if gate.metric == CLAIM:
        return "choosing experts is better than drawing them"
    if gate.metric in COUNTS:
        return f"at most {gate.bound.limit:.0f} {gate.metric} on {gate.task}"
    subject = gate.metric if gate.task is None else f"{gate.metric} on {gate.task}"
    show = percent if gate.is_share else number
    key, amount = gate.given
    if gate.against is None:
        return f"{subject} {'>=' if key == 'at_least' else '<='} {show(amount)}"
    other = "the reference" if gate.against == REFERENCE else gate.against
    points, word = f"{amount * 100:.6g} points", "below" if "below" in key else "above"
    if key.startswith("at_most"):
        return f"{subject} no more than {points} {word} {other}"
    return f"{subject} {word} {other}{f' by {points} or more' if amount else ''}"


def figure(row: Measurement) -> str:
    """Return a figure with its interval and sample size."""
    is_share = (metric_of(row.metric, row.kind).unit or row.unit) == "share"

    def show(value: float) -> str:
        return f"{hundredths(value)}%" if is_share else number(value)

    value = "no value" if row.value is None else show(row.value)
    interval = (
        "" if row.low is None or row.high is None else f", 95% interval {show(row.low)} to {show(row.high)}"
    )
    return f"{value} (n = {row.scored}{interval})"


def share(samples: Samples) -> str:
    """Return a share with its counts, and how many samples have no verdict."""
    value = "no value" if samples.value is None else f"{hundredths(samples.value)}%"
    left = f", {samples.unscored} unscored held against it" if samples.unscored else ""
    return f"{value} ({samples.successes} of {samples.scored}{left})"


def grouped(samples: Samples) -> str:
    """Return how many samples decide, where near-duplicates and answers to one prompt count once."""
    decides = samples.independent
    if decides.n == samples.n:
        return ""
    one = "answer per prompt" if samples.groups is None else "prompt per group of near-duplicates"
    return f"of one {one} {decides.successes} of {decides.scored}, "


def compared(other: Samples) -> str:
    """Return the share that a gate compares with."""
    if other.value is None:
        return "no value"
    return f"{hundredths(other.value)}% ({other.successes} of {other.scored})"


def bounded(bound: float, gate: Gate, side: Side, level: float) -> str:
    """Return a confidence bound, with enough digits to tell it from the limit.

    For a gate that fails it is the bound on the other side: how good the figure can be at best.
    """
    is_lower = side == "lower"
    figure = f"{_apart(bound, gate.bound.limit, down=is_lower)}{'%' if gate.against is None else ' points'}"
    if gate.against is not None and not figure.startswith("-"):
        figure = f"+{figure}"
    return f"{'at least' if is_lower else 'at most'} {figure} with {(1 - level) * 100:g}% confidence"


def sized(n: int | None) -> str:
    """Return how many samples a bound takes."""
    return f"not even {LARGEST_N:,} would do" if n is None else f"it takes {n:,} or more"


def _apart(value: float, limit: float, *, down: bool) -> str:
    """Return a fraction in percent, rounded to the side that claims less, on the limit's side that it is on."""
    for digits in range(1, _MOST_DIGITS + 1):
        scale = 10**digits
        # Digits after the ninth are rounding error.
        exact = round(value * 100 * scale, 9)
        rounded = (math.floor(exact) if down else math.ceil(exact)) / scale
        shown = f"{rounded:z.{digits}f}"
        if (rounded >= limit * 100) == (value >= limit) and (rounded <= limit * 100) == (value <= limit):
            return shown
    return shown


def percent(fraction: float) -> str:
    """Return a limit that is a share."""
    return f"{fraction * 100:.6g}%"
