"""Whether a loss is smaller than a margin that was declared beforehand.

A p-value above 0.05 against "no difference" shows nothing of the kind. The test is one-sided at 0.025, as is usual for
such claims (ICH E9, Statistical Principles for Clinical Trials, 1998, section 3.3.2), and exact for samples that are
yes or no, so that a loss as large as the margin passes in no more than 2.5 % of runs at any sample size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from harness.metrics.bounds import (
    difference_lower_bound,
    difference_p_value,
    share_upper_bound,
    tango_score,
    z_of,
)
from harness.metrics.clustered import one_per_cluster
from harness.metrics.paired import mcnemar
from harness.metrics.rates import Groups, Outcomes, Prompts
from harness.metrics.scores import mean_and_error

LEVEL = 0.025
_LARGEST = 5_000
_STEP = 1.02


class NonInferiority(NamedTuple):
    """How large a loss is not ruled out.

    Attributes:
        bound: the largest loss that is not ruled out; a negative one is a gain that is shown.
        is_no_worse: whether it is below the margin.
        needed: how many samples would show it at the rates seen, where it is not shown; None where none would.
        n: the independent samples that decided: one per group of near-duplicates.
        at_best: wins and losses with unscored samples counted for the variant; None for scores that are no shares.
    """

    bound: float
    is_no_worse: bool
    needed: int | None
    n: int
    at_best: tuple[int, int] | None = None

    def needed_for_a_loss(self, level: float) -> int | None:
        """Return how many samples would show a loss at a two-sided level and the rates seen; None where none would."""
        wins, losses = self.at_best or (0, 0)
        if losses <= wins:
            return None
        size = self.n
        while size <= _LARGEST:
            if mcnemar(round(wins * size / self.n), round(losses * size / self.n)) <= level:
                break
            size = max(math.ceil(size * _STEP), size + 1)
        return size


def no_worse_share(
    variant: Outcomes,
    against: Outcomes,
    *,
    more_is_better: bool,
    margin: float,
    groups: Groups | None = None,
    seed: int = 0,
    prompts: Prompts | None = None,
) -> NonInferiority | None:
    """Bound the loss in a share, with every unscored sample counted against the variant.

    Args:
        variant: the outcome of each sample.
        against: the same samples of what it is compared with.
        more_is_better: whether a higher share is better.
        margin: the loss that would not matter, between 0 and 1.
        groups: of near-duplicates; one member of each decides then.
        seed: which member.
        prompts: of several answers each; one answer of each, or of each group of near-duplicates, decides then.

    Returns:
        None without a sample.
    """
    ids = one_per_cluster(variant, groups, prompts, seed)
    good = more_is_better

    def counts(unscored: bool) -> tuple[int, int]:
        """Return wins and losses with each unscored sample counted for the variant, or against it."""
        counted = good if unscored else not good
        pairs = [
            (
                counted if variant[id] is None else variant[id],
                (not counted) if against[id] is None else against[id],
            )
            for id in ids
        ]
        return pairs.count((good, not good)), pairs.count((not good, good))

    if not ids:
        return None
    n, (wins, losses) = len(ids), counts(unscored=False)
    bound = -difference_lower_bound(wins, losses, n, LEVEL, -margin)
    is_no_worse = difference_p_value(wins, losses, n, -margin) <= LEVEL
    needed = None if is_no_worse else _needed(wins, losses, n, margin)
    return NonInferiority(bound, is_no_worse, needed, n, counts(unscored=True))


def no_worse_mean(
    variant: Mapping[str, float], against: Mapping[str, float], *, more_is_better: bool, margin: float
) -> NonInferiority | None:
    """Bound the loss in a mean of scores between 0 and 1, by the t of their differences.

    Where no item differs there is no variance to see, and the loss is at most the share of items that may differ all
    the same (Clopper and Pearson's bound).

    Returns:
        None with fewer than two items, and where all differ by the same amount.
    """
    from scipy.stats import t

    sign = -1 if more_is_better else 1
    losses = [sign * (score - against[item]) for item, score in variant.items()]
    n = len(losses)
    if n < 2:
        return None
    mean, error = mean_and_error(losses)
    if error is None and mean:
        return None
    quantile = float(t.ppf(1 - LEVEL, n - 1))
    bound = share_upper_bound(0, n, LEVEL) if error is None else mean + quantile * error
    if bound < margin:
        return NonInferiority(bound, True, None, n)
    needed = None
    if error is None:
        needed = math.ceil(math.log(LEVEL) / math.log1p(-margin))
    elif mean < margin:
        needed = max(math.ceil(n * (quantile * error / (margin - mean)) ** 2), n + 1)
    return NonInferiority(bound, False, needed, n)


@lru_cache(maxsize=4096)
def _needed(wins: int, losses: int, n: int, margin: float) -> int | None:
    """Return how many pairs would show it if wins and losses kept their shares; about, beyond `_LARGEST`."""
    score = tango_score(wins, losses, n, -margin)
    if score <= 0:
        return None
    # With the shares fixed, the score grows with the root of n.
    size = max(math.ceil(n * (z_of(LEVEL) / score) ** 2), n + 1)
    while size <= _LARGEST and not _shows(wins, losses, n, size, margin):
        size = math.ceil(size * _STEP)
    return size


def _shows(wins: int, losses: int, n: int, size: int, margin: float) -> bool:
    return difference_p_value(round(wins * size / n), round(losses * size / n), size, -margin) <= LEVEL
