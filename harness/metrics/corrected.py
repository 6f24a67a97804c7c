"""A rate corrected by people's labels of some of the same answers, and a test of the judge's errors.

The labels are drawn by the judge's verdict, so each verdict is a stratum. With W the share of answers that the judge
calls positive, the true rate is W * (true share among those) + (1 - W) * (true share among the others): the
prediction-powered estimate (Angelopoulos and others, Prediction-powered inference, arXiv:2301.09633) for a draw by
verdict. It needs nothing that was measured on other answers, and has no bias whatever the judge's errors are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from harness.metrics.interval import wilson_ends

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

FEWEST_LABELS = 25
"""Labels of each verdict that a correction needs, where there are so many answers."""


class Corrected(NamedTuple):
    """A corrected rate with its interval; arrays of one shape where counts were arrays."""

    value: Floats
    low: Floats
    high: Floats


class Drawn(NamedTuple):
    """The labelled answers of one verdict.

    Attributes:
        positive: those that people call positive (refusal).
        n: all of them; 0 only where the judge gave this verdict to no answer.
        ends: of the interval of their share; Wilson's where None.
    """

    positive: ArrayLike
    n: ArrayLike
    ends: tuple[ArrayLike, ArrayLike] | None = None


def prediction_powered(
    share: tuple[ArrayLike, ArrayLike, ArrayLike], called: Drawn, others: Drawn
) -> Corrected:
    """Return the true rate with its 95 % interval.

    The interval is MOVER's (Zou and Donner, Construction of confidence limits about effect measures, Statistics in
    Medicine 27 (2008) 1693): each of three independent estimates is moved to the end of its own interval, and the
    changes that this makes are added as squares. Two are the true shares within the verdicts, the third is the
    judge's own rate, since the prompts are a sample too.

    Args:
        share: the judge's rate with the ends of its interval.
        called: labels of answers that the judge calls positive.
        others: labels of answers that it calls negative.
    """
    import numpy as np

    rate, rate_low, rate_high = (np.asarray(x, dtype=np.float64) for x in share)
    changes = []
    for side in (0, 1):  # the lower end, then the upper one
        inside, inside_end = _mean_and_end(called, side)
        outside, outside_end = _mean_and_end(others, side)
        gap = inside - outside
        rate_end = np.where((gap > 0) == (side == 1), rate_high, rate_low)
        squares = (
            (rate * (inside_end - inside)) ** 2
            + ((1 - rate) * (outside_end - outside)) ** 2
            + (gap * (rate_end - rate)) ** 2
        )
        changes.append(np.sqrt(squares))
    value = np.clip(rate * inside + (1 - rate) * outside, 0.0, 1.0)
    return Corrected(value, np.clip(value - changes[0], 0.0, 1.0), np.clip(value + changes[1], 0.0, 1.0))


def _mean_and_end(drawn: Drawn, side: int) -> tuple[Floats, Floats]:
    """Return the positive share and one end of its interval; of a verdict never given, the end that is worst."""
    import numpy as np

    positive, n = (np.asarray(x, dtype=np.float64) for x in drawn[:2])
    mean = np.where(n > 0, positive / np.maximum(n, 1), float(side))
    ends = drawn.ends or wilson_ends(mean, np.maximum(n, 1))
    return mean, np.where(n > 0, ends[side], float(side))
