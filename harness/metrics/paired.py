"""Differences of paired shares and scores: two variants on the same samples, tested against no difference.

Every result also says what it comes to in the worst case for it, where samples could not be scored. Whether a loss is
small enough is another question; see noninferiority.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import NamedTuple

from harness.metrics.clustered import clustered_test, one_per_group
from harness.metrics.interval import Interval
from harness.metrics.rates import Groups, Outcomes, Prompts, by_prompt, wilson
from harness.metrics.scores import mean_and_error

POWER = 0.8
"""The power behind `Paired.minimum_detectable`."""
_STEP = 1e-4


class WorstCase(NamedTuple):
    """A difference over all samples, whatever the unscored ones would have been.

    Attributes:
        low: with each unscored sample counted against the variant.
        high: with each counted for it.
        p_value: two-sided, of the end that is nearer to no difference; 1 where the sign may be the other one.
    """

    low: float
    high: float
    p_value: float


class Paired(NamedTuple):
    """One variant less another on the samples that were scored in both; figures are None where there is none.

    Attributes:
        variant: the first one's share or mean over these pairs.
        against: the other's.
        difference: with its 95 % interval; None also where all scores differ by the same amount: no variance is seen.
        p_value: two-sided, of `test`.
        test: "exact McNemar" for yes or no; "cluster-robust t" where samples repeat one another; "paired t" for other
            scores, such as shares of several answers, or "exact sign" where every item differs by the same amount.
        n: pairs compared; prompts where samples are answers, several to a prompt.
        groups: how many groups of near-duplicates they form; None where none repeats another.
        discordant: pairs that differ.
        spread: the standard error behind `minimum_detectable`; None where none could be seen.
        worst_case: see `WorstCase`; None where nothing can be unscored.
        is_graded: whether pairs are of scores rather than of yes or no.
    """

    variant: float | None
    against: float | None
    difference: Interval | None
    p_value: float | None
    test: str
    n: int
    groups: int | None = None
    discordant: int = 0
    spread: float | None = None
    worst_case: WorstCase | None = None
    is_graded: bool = False

    def minimum_detectable(self, level: float) -> float | None:
        """Return the true difference that such a comparison finds with 80 % power at a two-sided level.

        Of scores by the normal approximation. For shares it is the exact power of McNemar's test on as many
        independent pairs as would give the same standard error. Where few pairs differ, a difference needs as many
        discordant pairs as it is large: it is never zero.
        """
        from scipy.stats import norm

        if self.spread is None or not self.n:
            return None
        if self.is_graded:
            return float(norm.ppf(1 - level / 2) + norm.ppf(POWER)) * self.spread
        share, independent = self.discordant / self.n, self.groups or self.n
        if self.test == "cluster-robust t" and self.difference is not None:
            alike = (share - self.difference.value**2) / self.spread**2
            independent = max(min(round(alike), self.n), 1) if alike > 0 else independent
        return detectable_difference(independent, share, level)


class _Test(NamedTuple):
    difference: Interval | None
    p_value: float
    test: str
    spread: float | None
    is_graded: bool = False


Pairs = Mapping[str, tuple[float, float]]
"""Whether a sample counts in the first and in the second of two variants, or what share of a prompt's answers does."""


def compare_shares(
    variant: Outcomes,
    against: Outcomes,
    groups: Groups | None = None,
    seed: int = 0,
    prompts: Prompts | None = None,
) -> Paired:
    """Compare two shares on the samples that were scored in both.

    Without near-duplicates the p-value is McNemar's exact one and the interval Newcombe's approximation, so near 0.05
    one may exclude zero where the other does not; the p-value decides. With near-duplicates both are the
    cluster-robust t's; where every group differs alike, one member of each group is compared as above.

    Of several answers, prompts are compared by the shares of their scored answers, with the t of the differences;
    where all answers of each prompt agree, as one answer per prompt is.

    Args:
        variant: whether each sample counts, None where unscored.
        against: the same samples of what it is compared with.
        groups: of near-duplicates, where there are any.
        seed: which member stands for its group.
        prompts: of several answers each.

    Raises:
        ValueError: the two were not asked the same samples.
    """
    _check_same_keys(variant, against)
    if prompts is not None and groups is not None:
        groups = {prompts[id]: group for id, group in groups.items() if id in prompts}
    pairs = pairs_of(variant, against, prompts)
    worst = _worst_case(variant, against, groups, seed, prompts)
    distinct = None if groups is None else len({groups[id] for id in pairs})
    if not pairs:
        return Paired(None, None, None, None, "exact McNemar", 0, distinct, worst_case=worst)
    tested = _test(pairs, groups, seed)
    n = len(pairs)
    first, second = (sum(pair[side] for pair in pairs.values()) / n for side in (0, 1))
    discordant = sum(one != other for one, other in pairs.values())
    if worst is None:
        value = _value(tested, pairs)
        worst = WorstCase(value, value, tested.p_value)
    return Paired(
        first,
        second,
        tested.difference,
        tested.p_value,
        tested.test,
        n,
        distinct,
        discordant,
        tested.spread,
        worst,
        tested.is_graded,
    )


def compare_scores(variant: Mapping[str, float], against: Mapping[str, float]) -> Paired:
    """Compare two means of scores per item, such as accuracy.

    Scores of 0 and 1 throughout are compared as shares are, others by Student's t on the differences: the normal
    approximation is wrong in 19 % of cases at 3 items and in 11 % at 5, where .05 is promised.

    Args:
        variant: score by item id.
        against: the same for what it is compared with.

    Raises:
        ValueError: the two were not scored on the same items.
    """
    from scipy.stats import t

    _check_same_keys(variant, against)
    if len(variant) > 1 and {*variant.values(), *against.values()} <= {0, 1}:
        ours, theirs = ({item: score == 1 for item, score in scores.items()} for scores in (variant, against))
        return compare_shares(ours, theirs)._replace(worst_case=None)
    differences = [score - against[item] for item, score in variant.items()]
    n, discordant = len(differences), sum(difference != 0 for difference in differences)
    if n < 2:
        return Paired(None, None, None, None, "paired t", n, discordant=discordant)
    first, second = (math.fsum(scores[item] for item in variant) / n for scores in (variant, against))
    mean, error = mean_and_error(differences)
    if error is None:
        return Paired(first, second, None, mcnemar(discordant, 0), "exact sign", n, discordant=discordant)
    reach = float(t.ppf(0.975, n - 1)) * error
    interval = Interval(value=mean, low=mean - reach, high=mean + reach)
    p_value = 2 * float(t.sf(abs(mean) / error, n - 1))
    return Paired(
        first, second, interval, p_value, "paired t", n, discordant=discordant, spread=error, is_graded=True
    )


def pairs_of(
    variant: Outcomes, against: Outcomes, prompts: Prompts | None = None
) -> dict[str, tuple[float, float]]:
    """Return both figures of each sample that was scored in both; by prompt, where each has several answers."""
    if prompts is None:
        return {
            id: (mine, theirs)
            for id, mine in variant.items()
            if mine is not None and (theirs := against[id]) is not None
        }
    ours, others = (
        by_prompt({id: each for id, each in side.items() if each is not None}, prompts)
        for side in (variant, against)
    )
    return {prompt: (fmean(ours[prompt]), fmean(others[prompt])) for prompt in ours if prompt in others}


def _test(pairs: Pairs, groups: Groups | None, seed: int) -> _Test:
    if any(each not in (0, 1) for pair in pairs.values() for each in pair):
        return _graded(pairs, groups)
    if groups is None:
        return _exact(list(pairs.values()))
    differences = [float(one) - float(other) for one, other in pairs.values()]
    clustered = clustered_test(differences, [groups[id] for id in pairs])
    if clustered is not None:
        mean = clustered.mean
        within = Interval(value=mean.value, low=max(mean.low, -1.0), high=min(mean.high, 1.0))
        return _Test(within, clustered.p_value, "cluster-robust t", clustered.error)
    drawn = one_per_group({id: groups[id] for id in pairs}, seed)
    exact = _exact([pairs[id] for id in drawn])
    # Groups that all differ alike, so every member says the same, but for those that cancel within each group.
    value = sum(differences) / len(differences)
    drawn_ends = exact.difference or Interval(value=value, low=value, high=value)
    ends = Interval(value=value, low=min(drawn_ends.low, value), high=max(drawn_ends.high, value))
    return exact._replace(difference=ends, p_value=exact.p_value if value else 1.0)


def _graded(pairs: Pairs, groups: Groups | None) -> _Test:
    """Test the differences of prompts' shares of answers: by the t, or by signs where all clusters differ alike."""
    differences = [one - other for one, other in pairs.values()]
    clusters = list(pairs) if groups is None else [groups[prompt] for prompt in pairs]
    clustered = clustered_test(differences, clusters)
    if clustered is None:
        differing = {cluster for cluster, each in zip(clusters, differences, strict=True) if each}
        return _Test(None, mcnemar(len(differing), 0), "exact sign", None, is_graded=True)
    mean = clustered.mean
    within = Interval(value=mean.value, low=max(mean.low, -1.0), high=min(mean.high, 1.0))
    name = "paired t" if groups is None else "cluster-robust t"
    return _Test(within, clustered.p_value, name, clustered.error, is_graded=True)


def _exact(pairs: Sequence[tuple[float, float]]) -> _Test:
    n = len(pairs)
    first_only, second_only = pairs.count((1, 0)), pairs.count((0, 1))
    interval = newcombe_interval(pairs.count((1, 1)), first_only, second_only, pairs.count((0, 0)))
    return _Test(
        interval,
        mcnemar(first_only, second_only),
        "exact McNemar",
        math.sqrt((first_only + second_only) / n / n),
    )


def _worst_case(
    variant: Outcomes, against: Outcomes, groups: Groups | None, seed: int, prompts: Prompts | None
) -> WorstCase | None:
    """Return the worst case of a difference; None where everything was scored, so that it is the difference."""
    if not variant or not any(None in (mine, against[id]) for id, mine in variant.items()):
        return None
    filled = [
        pairs_of(
            {id: ours if mine is None else mine for id, mine in variant.items()},
            {id: (not ours) if theirs is None else theirs for id, theirs in against.items()},
            prompts,
        )
        for ours in (False, True)
    ]
    low, high = (_test(pairs, groups, seed) for pairs in filled)
    ends = _value(low, filled[0]), _value(high, filled[1])
    if ends[0] <= 0 <= ends[1]:
        return WorstCase(*ends, 1.0)
    return WorstCase(*ends, low.p_value if ends[0] > 0 else high.p_value)


def _value(tested: _Test, pairs: Pairs) -> float:
    if tested.difference is not None:
        return tested.difference.value
    return fmean(one - other for one, other in pairs.values())


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: 1 where nothing differs."""
    from scipy.stats import binomtest

    discordant = first_only + second_only
    return float(binomtest(first_only, discordant, 0.5).pvalue) if discordant else 1.0


def newcombe_interval(
    both: int, first_only: int, second_only: int, neither: int, level: float = 0.95
) -> Interval:
    """Return the difference between two paired shares, first less second, with its interval.

    Method 10 of Newcombe, Improved confidence intervals for the difference between binomial proportions
    based on paired data, Statistics in Medicine 17 (1998) 2635: the two Wilson intervals, squared and
    added, less their correlation. It stays inside -1 and 1 and is not degenerate at 0 discordant pairs.

    Args:
        both: pairs where both succeed.
        first_only: pairs where only the first does.
        second_only: pairs where only the second does.
        neither: pairs where neither does; the four sum to more than 0.
        level: the confidence level.
    """
    n = both + first_only + second_only + neither
    first, second = both + first_only, both + second_only
    one, two = wilson(first, n, level), wilson(second, n, level)
    product = both * neither - first_only * second_only
    # The continuity correction applies to a positive association only.
    covariance = max(product - n / 2, 0.0) if product > 0 else float(product)
    scale = math.sqrt(first * (n - first) * second * (n - second))
    correlation = covariance / scale if scale else 0.0

    def reach(left: float, right: float) -> float:
        return math.sqrt(max(left**2 - 2 * correlation * left * right + right**2, 0.0))

    difference = one.value - two.value
    return Interval(
        value=(first_only - second_only) / n,
        low=difference - reach(one.value - one.low, two.high - two.value),
        high=difference + reach(one.high - one.value, two.value - two.low),
    )


@lru_cache(maxsize=1024)
def detectable_difference(n: int, discordant_share: float, level: float) -> float:
    """Return the smallest difference that McNemar's exact test on `n` pairs finds with 80 % power.

    Args:
        n: independent pairs.
        discordant_share: the share of pairs that differ; a larger difference needs a larger one.
        level: two-sided.

    Returns:
        At most 1, also where not even a difference of 1 would be found.
    """
    import numpy as np
    from scipy.stats import binom

    pairs = np.arange(n + 1)
    # So many of the discordant pairs must go one way.
    needed = binom.isf(level / 2, pairs, 0.5) + 1

    def power(difference: float) -> float:
        share = max(discordant_share, difference)
        found = binom.sf(needed - 1, pairs, (share + difference) / (2 * share))
        return float(binom.pmf(pairs, n, share) @ found)

    low, high = 0.0, 1.0
    while high - low > _STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def adjust(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values of one family of tests, adjusted by Holm's method; None stays None and is not counted."""
    adjusted: list[float | None] = [None] * len(p_values)
    ranked = sorted((p_value, at) for at, p_value in enumerate(p_values) if p_value is not None)
    highest = 0.0
    for rank, (p_value, at) in enumerate(ranked):
        highest = max(highest, p_value * (len(ranked) - rank))
        adjusted[at] = min(highest, 1.0)
    return adjusted


def _check_same_keys(variant: Mapping[str, object], against: Mapping[str, object]) -> None:
    different = variant.keys() ^ against.keys()
    if different:
        raise ValueError(f"{len(different)} ids are in one only, such as {min(different)!r}")
