"""The sets of experts that a random draw is matched with: as many per layer, and about as much use in all.

Uniform draws from everything within 10 % of the selection's use would sit at one edge: among many sets nearly all carry
as little as is allowed. A selection would then be compared with sets of less use than its own, and experts that are
used more move a model more whatever they are. So the band is narrowed on the crowded side until its sets carry, on
average, what the selection carries.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

REACH = 0.1
"""The use of a matched set differs from the selection's by at most this share."""
# Sets are counted one by one up to this many, and estimated above it.
_COUNTABLE = 1_000_000
# Cells that the selection's use is divided into where sets are estimated.
_CELLS = 2_000
_HALVINGS = 50


class UseBand(NamedTuple):
    """The uses that matched sets have, and how many such sets there are.

    Attributes:
        low: the least use in all, in the unit of the experts' use.
        high: the most.
        log10_sets: the decimal logarithm of the number of sets.
        is_counted: whether the sets were counted; otherwise their number is an estimate.
    """

    low: float
    high: float
    log10_sets: float
    is_counted: bool


def log10_choices(n_experts: int, chosen: Sequence[int]) -> float:
    """Return the decimal logarithm of the number of sets with so many experts in each layer."""
    return sum(math.log10(math.comb(n_experts, k)) for k in chosen)


def use_band(use: np.ndarray, chosen: Sequence[int], target: float) -> UseBand:
    """Return the band of use around a selection's.

    Args:
        use: of each expert, [layers that the selection has experts in, E].
        chosen: how many experts the selection has in each of these layers.
        target: the selection's use in all.
    """
    is_counted = log10_choices(use.shape[1], chosen) <= math.log10(_COUNTABLE)
    if is_counted:
        values = np.sort(_totals(use, chosen))
        log_counts = np.zeros(len(values))
        slack = 1e-9 * target
    else:
        values, log_counts = _estimated(use, chosen, target)
        slack = 0.5 * target / _CELLS
    within = np.abs(values - target) <= REACH * target
    values, log_counts = values[within], log_counts[within]
    weights = np.exp(log_counts - log_counts.max())
    kept = _balanced(values, weights, target)
    low = min(values[kept][0] - slack, target)
    high = max(values[kept][-1] + slack, target)
    # Sets of the same use go together.
    all_kept = weights[(values >= low) & (values <= high)].sum()
    log10_sets = (math.log(all_kept) + log_counts.max()) / math.log(10)
    return UseBand(float(low), float(high), max(0.0, float(log10_sets)), is_counted)


def _balanced(values: np.ndarray, weights: np.ndarray, target: float) -> slice:
    """Return the widest part of sorted values, open on one side only, whose weighted mean is the target."""
    if np.average(values, weights=weights) <= target:
        means = np.cumsum((weights * values)[::-1])[::-1] / np.cumsum(weights[::-1])[::-1]
        reached = np.flatnonzero(means >= target * (1 - 1e-12))
        return slice(min([*reached[:1], _place(values, target)]), None)
    means = np.cumsum(weights * values) / np.cumsum(weights)
    reached = np.flatnonzero(means <= target * (1 + 1e-12))
    return slice(0, max([*reached[-1:], _place(values, target)]) + 1)


def _place(values: np.ndarray, target: float) -> int:
    return int(np.argmin(np.abs(values - target)))


def _totals(use: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Return the use of every set."""
    totals = np.zeros(1)
    for row, k in zip(use, chosen, strict=True):
        sums = np.array([math.fsum(members) for members in itertools.combinations(row.tolist(), k)])
        totals = np.add.outer(totals, sums).ravel()
    return totals


def _estimated(use: np.ndarray, chosen: Sequence[int], target: float) -> tuple[np.ndarray, np.ndarray]:
    """Return uses on a grid and the logarithm of how many sets have each, up to what is within reach of the target.

    Each expert's use is rounded to the grid. Were every expert chosen with some probability by itself, the chance of a
    set would be known; these probabilities are tilted so that sets near the target are common, since among all sets
    they may be one in 10^100.
    """
    unit = target / _CELLS
    cells = np.rint(use / unit).astype(int)  # [L, E]
    size = math.ceil((1 + REACH) * _CELLS) + 2
    k = np.asarray(chosen)
    theta, log_odds = _tilt(cells, k)
    total, constant = np.zeros(size), 0.0
    total[0] = 1.0
    for row, count, odds in zip(cells, chosen, log_odds, strict=True):
        # [k + 1, size]: the chance of so many chosen experts with so much use.
        chance = np.zeros((count + 1, size))
        chance[0, 0] = 1.0
        for cell, logit in zip(row.tolist(), (odds + theta * row).tolist(), strict=True):
            p = 1 / (1 + math.exp(-logit))
            with_it = p * chance[:-1, : max(0, size - cell)]
            chance *= 1 - p
            chance[1:, cell : cell + with_it.shape[1]] += with_it
        total = np.convolve(total, chance[count])[:size]
        constant += float(np.logaddexp(0, odds + theta * row).sum()) - count * float(odds)
    grid = np.arange(size)
    reachable = total > 0
    log_counts = np.log(total[reachable]) + constant - theta * grid[reachable]
    return grid[reachable] * unit, log_counts


def _tilt(cells: np.ndarray, chosen: np.ndarray) -> tuple[float, np.ndarray]:
    """Return theta and, per layer, the log-odds that together choose so many experts with the target's use on average.

    An expert of use u is chosen with log-odds odds + theta * u.
    """
    # A layer that is chosen whole would have infinite odds.
    wanted = np.minimum(chosen, cells.shape[1] - 0.5)[:, None]
    steepest = 60 / max(1, int(cells.max()))
    low, high = -steepest, steepest
    for _ in range(_HALVINGS):
        theta = (low + high) / 2
        least, most = np.full((len(cells), 1), -150.0), np.full((len(cells), 1), 150.0)
        for _ in range(_HALVINGS):
            odds = (least + most) / 2
            p = 1 / (1 + np.exp(-(odds + theta * cells)))
            is_more = p.sum(axis=1, keepdims=True) > wanted
            least, most = np.where(is_more, least, odds), np.where(is_more, odds, most)
        if (p * cells).sum() > _CELLS:
            high = theta
        else:
            low = theta
    return theta, odds[:, 0]
