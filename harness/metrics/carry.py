"""Which trained experts carry an effect: rates while experts are put back to base one after another."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from harness.metrics.clustered import places_by_group
from harness.metrics.rates import Groups

T = TypeVar("T")

_RESAMPLES = 2000
# An interval rests on the resamples that have an effect at all; where many have none, there is no interval.
_FEWEST_WITH_EFFECT = 0.95

Refused = Mapping[str, bool | None]
"""Whether each prompt was refused, by id; None where the answer could not be scored."""


class Half(NamedTuple):
    """How many experts have to be put back until half of the effect is gone.

    Attributes:
        value: of one order; the mean of several.
        low: lower end of its 95 % interval over prompts, or groups of near-duplicates; None where the effect is too
            uncertain for one.
        high: upper end.
    """

    value: float
    low: float | None
    high: float | None


def orders(ranked: Sequence[T], n: int, seed: int) -> list[list[T]]:
    """Return the order by rank, the highest score first, and `n` random ones.

    More orders of the same seed begin with those of fewer.
    """
    drawn = []
    for place in range(n):
        order = list(ranked)
        random.Random(f"{seed} carry {place}").shuffle(order)
        drawn.append(order)
    return [list(ranked), *drawn]


def sizes(experts: int, steps: int) -> list[int]:
    """Return how many experts are put back at each step, from none to all, evenly spaced.

    Examples:
        >>> sizes(12, 4), sizes(3, 24)
        ([0, 3, 6, 9, 12], [0, 1, 2, 3])
    """
    n = min(steps, experts)
    return sorted({round(place * experts / n) for place in range(n + 1)})


def half(
    put_back: Sequence[int],
    curves: Sequence[Sequence[Refused]],
    seed: int = 0,
    groups: Groups | None = None,
) -> Half | None:
    """Return the number of experts that carries half of the effect on refusal.

    It is the smallest number put back at which the rate has come half of the way, or more, to that with all put back.

    Args:
        put_back: how many experts are put back at each step, from none to all.
        curves: of each order, whether each harmful prompt was refused at each step.
        seed: of the resamples of prompts.
        groups: of near-duplicate prompts, which are resampled together; None where all differ.

    Returns:
        None where refusal is no higher with the trained experts than without them, or nothing was scored.
    """
    import numpy as np

    ids = list(curves[0][0])
    outcomes = np.array(
        [[[_number(step[id]) for id in ids] for step in curve] for curve in curves]
    )  # [orders, steps, N]
    value = _mean_number(put_back, outcomes)
    if value is None:
        return None
    drawing = np.random.default_rng(seed)
    places = places_by_group(ids if groups is None else [groups[id] for id in ids])
    n = len(places)
    drawn = [
        _mean_number(put_back, outcomes[..., [at for i in drawing.integers(n, size=n) for at in places[i]]])
        for _ in range(_RESAMPLES)
    ]
    known = [number for number in drawn if number is not None]
    if len(known) < _FEWEST_WITH_EFFECT * _RESAMPLES:
        return Half(value, None, None)
    low, high = np.quantile(known, [0.025, 0.975])
    return Half(value, min(float(low), value), max(float(high), value))


def half_of_each(put_back: Sequence[int], curves: Sequence[Sequence[Refused]]) -> list[float | None]:
    """Return the number that carries half in each order by itself."""
    return [
        _mean_number(put_back, [[[_number(refused) for refused in step.values()] for step in curve]])
        for curve in curves
    ]


def _number(refused: bool | None) -> float:
    return float("nan") if refused is None else float(refused)


def _mean_number(put_back: Sequence[int], outcomes: object) -> float | None:
    """Return the number, meaned over orders; None without an effect."""
    import numpy as np

    values = np.asarray(outcomes)
    scored = (~np.isnan(values)).sum(-1)
    if not scored.all():
        return None
    rates = np.nansum(values, -1) / scored  # [orders, steps]
    first, last = rates[:, :1], rates[:, -1:]
    if (first <= last).any():
        return None
    # Half of a sum of shares may miss half by rounding.
    places = (rates <= last + (first - last) / 2 + 1e-12).argmax(axis=1)
    return float(np.asarray(put_back)[places].mean())
