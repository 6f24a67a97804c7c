"""The place of one figure among those of random draws: the test of a claim about a method of choosing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

LEVEL = 0.05
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


class Claimed(NamedTuple):
    """What random draws say of a method.

    Attributes:
        verdict: whether the method is better than drawing.
        reason: why nothing is claimed; None where something is decided.
    """

    verdict: Literal["shown", "not shown", "nothing claimed"]
    reason: str | None = None


def claimed(p_value: float | None, draws: int, use_share: float | None) -> Claimed:
    """Return what is claimed.

    Args:
        p_value: of the method among its draws; None where the figure was not measured.
        draws: how many there are.
        use_share: how much the draws' experts are used, as a share of the chosen ones' use; None where unknown.
    """
    if not draws:
        return Claimed("nothing claimed", "no random draw of experts was evaluated")
    if draws < FEWEST_DRAWS:
        many = "1 draw" if draws == 1 else f"{draws} draws"
        best = f"{many} can show p = {best_p_value(draws):.2g} at best"
        return Claimed("nothing claimed", f"{best}; it takes {FEWEST_DRAWS}")
    if use_share is None:
        return Claimed("nothing claimed", "how much the draws' experts are used is not known")
    if use_share < LEAST_USE:
        return Claimed(
            "nothing claimed",
            f"the draws' experts are used {use_share:.0%} as much as the chosen ones, and use alone moves a model; "
            f"it takes {LEAST_USE:.0%}",
        )
    if p_value is None:
        return Claimed("nothing claimed", "the figure was not measured")
    return Claimed("shown" if p_value <= LEVEL else "not shown")


Range = tuple[float, float]
"""A figure with unscored answers counted out, then in."""


def beyond_draws(own: Range, draws: Sequence[Range], limit: float, *, upwards: bool) -> bool | None:
    """Return whether a method is beyond all draws by a limit: whatever the unscored answers are.

    Args:
        own: the method's figure.
        draws: theirs, one or more.
        limit: how far beyond; a negative one lets the method be a little worse.
        upwards: whether beyond is above, rather than below.

    Returns:
        True where the figure less the limit is beyond all draws, False where it is on the other side of all, else None.
    """
    sign = 1 if upwards else -1
    near, far = own if upwards else own[::-1]
    if all(sign * (near - limit) > sign * draw[upwards] for draw in draws):
        return True
    return False if all(sign * (far - limit) < sign * draw[not upwards] for draw in draws) else None
