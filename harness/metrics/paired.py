"""Two variants on the same prompts: the difference, its interval, and whether chance explains it.

All comparisons of a run are paired, since its variants answer the same prompts. Only the prompts on which
the two disagree carry information, so a comparison says how many those were and how small a difference it
could have seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.metrics.interval import Interval
from harness.metrics.rates import AnyLabel, wilson


class Comparison(NamedTuple):
    """One variant less another on what was scored in both; figures are None where there is none.

    Attributes:
        difference: of the two rates or means.
        low: the lower end of its 95 % interval.
        high: the upper end.
        p_value: two-sided, of `test`.
        test: "exact McNemar" for labels and for item scores of 0 and 1; for other scores "paired z", or "exact
            sign" where every item differs by the same amount and no variance can be estimated.
        n: pairs compared.
        discordant: pairs that differ.
        minimum_detectable: the true difference that such a comparison finds with 80 % power.
    """

    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    test: str
    n: int
    discordant: int
    minimum_detectable: float | None


def compare_labels(
    variant: Mapping[str, AnyLabel | None],
    against: Mapping[str, AnyLabel | None],
    wanted: AnyLabel = "refusal",
) -> Comparison:
    """Compare two refusal rates, or shares of another label, on the prompts that were scored in both.

    The p-value is exact and the interval an approximation (Newcombe's), so near 0.05 one may exclude zero
    where the other does not; the p-value decides.

    Args:
        variant: label by prompt id, None where unscored.
        against: the same for what it is compared with.
        wanted: the label whose share it is.

    Raises:
        ValueError: the two were not asked the same prompts.
    """
    _check_same_keys(variant, against)
    labels = [(label, against[key]) for key, label in variant.items()]
    scored = [(a == wanted, b == wanted) for a, b in labels if a is not None and b is not None]
    if not scored:
        return Comparison(None, None, None, None, "exact McNemar", 0, 0, None)
    return _compare_pairs(scored)


def compare_scores(variant: Mapping[str, float], against: Mapping[str, float]) -> Comparison:
    """Compare two means of scores per item, such as accuracy.

    Scores of 0 and 1 throughout are compared as labels are, others by the normal approximation.

    Args:
        variant: score by item id.
        against: the same for what it is compared with.

    Raises:
        ValueError: the two were not scored on the same items.
    """
    from scipy.stats import norm

    _check_same_keys(variant, against)
    if len(variant) > 1 and {*variant.values(), *against.values()} <= {0, 1}:
        return _compare_pairs([(score == 1, against[key] == 1) for key, score in variant.items()])
    differences = [score - against[key] for key, score in variant.items()]
    n, discordant = len(differences), sum(difference != 0 for difference in differences)
    if n < 2:
        return Comparison(None, None, None, None, "paired z", n, discordant, None)
    mean = math.fsum(differences) / n
    error = math.sqrt(math.fsum((difference - mean) ** 2 for difference in differences) / (n - 1) / n)
    if len(set(differences)) == 1:
        return Comparison(mean, mean, mean, mcnemar(discordant, 0), "exact sign", n, discordant, None)
    reach = float(norm.ppf(0.975)) * error
    return Comparison(
        difference=mean,
        low=mean - reach,
        high=mean + reach,
        p_value=2 * float(norm.sf(abs(mean) / error)),
        test="paired z",
        n=n,
        discordant=discordant,
        minimum_detectable=_quantiles() * error,
    )


def _compare_pairs(pairs: Sequence[tuple[bool, bool]]) -> Comparison:
    n = len(pairs)
    first_only, second_only = pairs.count((True, False)), pairs.count((False, True))
    interval = newcombe_interval(
        pairs.count((True, True)), first_only, second_only, pairs.count((False, False))
    )
    return Comparison(
        difference=interval.value,
        low=interval.low,
        high=interval.high,
        p_value=mcnemar(first_only, second_only),
        test="exact McNemar",
        n=n,
        discordant=first_only + second_only,
        minimum_detectable=minimum_detectable(n, (first_only + second_only) / n),
    )


def is_no_worse(low: float | None, margin: float) -> bool:
    """Return whether a difference's 95 % interval shows non-inferiority: all of it lies above `-margin`.

    A p-value above 0.05 shows nothing of the kind; this is a one-sided test at 0.025, as is usual for such claims
    (ICH E9, Statistical Principles for Clinical Trials, 1998, section 3.3.2).

    Args:
        low: the interval's lower end, more being better; None where there is no interval.
        margin: the loss that would not matter, more than 0.
    """
    return low is not None and low > -margin


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


def minimum_detectable(n: int, discordant_share: float) -> float:
    """Return the smallest difference that McNemar's test on `n` pairs finds at 0.05 with 80 % power.

    The normal approximation with the null's variance, (z_alpha/2 + z_power) * sqrt(discordant_share / n),
    as in Connor, Sample size for testing differences in proportions for the paired-sample design,
    Biometrics 43 (1987) 207, less its small correction. A difference can't exceed the share of discordant
    pairs, so where few were seen the answer is the difference that needs just as many: it is never zero.
    """
    quantiles = _quantiles()
    share = max(discordant_share, quantiles**2 / n)
    return min(quantiles * math.sqrt(share / n), 1.0)


def adjust(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p-values of one family of tests, adjusted by Holm's method; None stays None and is not counted."""
    adjusted: list[float | None] = [None] * len(p_values)
    ranked = sorted((p_value, at) for at, p_value in enumerate(p_values) if p_value is not None)
    highest = 0.0
    for rank, (p_value, at) in enumerate(ranked):
        highest = max(highest, p_value * (len(ranked) - rank))
        adjusted[at] = min(highest, 1.0)
    return adjusted


def _quantiles() -> float:
    """Return the sum of the normal quantiles of a two-sided level of 0.05 and a power of 80 %."""
    from scipy.stats import norm

    return float(norm.ppf(1 - 0.05 / 2) + norm.ppf(0.8))


def _check_same_keys(variant: Mapping[str, object], against: Mapping[str, object]) -> None:
    different = variant.keys() ^ against.keys()
    if different:
        raise ValueError(f"{len(different)} ids are in one only, such as {min(different)!r}")
