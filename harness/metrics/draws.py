"""The place of one figure among those of random draws: the test of a claim about a method of choosing."""

from __future__ import annotations

import math
from collections.abc import Sequence

FEWEST_DRAWS = 19
"""The fewest draws that can show p <= 0.05."""
LEAST_USE = 0.95
"""The least use of the draws' experts, as a share of the chosen ones' use, with which anything is claimed."""
_TIE = 1e-9


def draw_p_value(value: float, draws: Sequence[float], *, higher_is_better: bool = True) -> float:
    """Return (1 + draws that do as well or better) / (draws + 1): ties count against the method.

    Where the method is no better than drawing, its figure is one more draw, so p is at most x in no more than a share
    x of runs (Barnard, Journal of the Royal Statistical Society B 25 (1963) 294; on counting the method itself, Phipson
    and Smyth, Statistical Applications in Genetics and Molecular Biology 9 (2010) 39).
    """
    sign = 1 if higher_is_better else -1
    return (1 + sum(sign * draw >= sign * value - _TIE for draw in draws)) / (len(draws) + 1)


def best_p_value(draws: int) -> float:
    """Return the p-value of a method that is above all of so many draws."""
    return 1 / (draws + 1)


def fewest_draws(level: float) -> int:
    """Return how many draws a decision at this level takes."""
    return math.ceil(1 / level - 1e-9) - 1
