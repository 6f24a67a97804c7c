"""Shares and paired differences over prompts that repeat one another: near-duplicates are no independent evidence.

Everything takes the same partition: the group of each sample. Variances are cluster-robust (harness/metrics/ratio.py),
and quantiles are of Student's t with G - 1 degrees of freedom for G groups. Where no variance can be seen, or a bound
or margin is to be decided exactly, one member of each group stands for it (`one_per_group`): neither a majority vote
nor an effective sample size keeps its level.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from harness.metrics.interval import Interval, wilson_ends
from harness.metrics.ratio import covariance, mean_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[Any]

Id = TypeVar("Id", bound=Hashable)

# Variances below this are rounding error.
_NOTHING = 1e-20


class ClusteredTest(NamedTuple):
    """A mean of grouped samples against 0.

    Attributes:
        mean: with its 95 % interval.
        p_value: two-sided, by the cluster-robust t.
        error: the standard error.
        groups: how many there are.
    """

    mean: Interval
    p_value: float
    error: float
    groups: int


def clustered_share(successes: Sequence[bool], groups: Sequence[Hashable]) -> Interval | None:
    """Return the share of grouped samples with its interval; None without a sample.

    The interval is Wilson's for the number of independent samples that would give the same variance (Korn and Graubard,
    Survey Methodology 24 (1998) 193), at most as many as there are samples, with the quantile of t. Where all samples
    agree there are as many as groups.

    Args:
        successes: one per sample.
        groups: the group of each.
    """
    from scipy.stats import t

    n, distinct = len(successes), len(set(groups))
    if not n:
        return None
    share = sum(successes) / n
    independent = float(distinct)
    if 0 < share < 1 and distinct > 1:
        variance = mean_and_error([float(each) for each in successes], groups)[1] ** 2
        independent = min(share * (1 - share) / variance, n) if variance > _NOTHING else float(n)
    if distinct < 2:
        return Interval(value=share, low=0.0, high=1.0)
    low, high = wilson_ends(share, independent, float(t.ppf(0.975, distinct - 1)))
    return Interval(value=share, low=float(low), high=float(high))


def clustered_test(values: Sequence[float], groups: Sequence[Hashable]) -> ClusteredTest | None:
    """Return the mean of grouped samples tested against 0.

    Returns:
        None with fewer than two groups, or where every group's mean is alike and no variance can be seen.
    """
    from scipy.stats import t

    distinct = len(set(groups))
    if distinct < 2:
        return None
    mean, error = mean_and_error(values, groups)
    if error**2 <= _NOTHING:
        return None
    reach = float(t.ppf(0.975, distinct - 1)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, distinct - 1))
    return ClusteredTest(Interval(value=mean, low=mean - reach, high=mean + reach), p_value, error, distinct)


def clustered_difference(
    values: Sequence[float], inside: Sequence[bool], groups: Sequence[Hashable]
) -> float:
    """Return the two-sided p-value that samples inside a part have another mean than all others.

    Each group's score is the sum of its samples' products of two deviations from the mean, that of the value and that
    of being inside; without a difference, scores have mean 0. They are tested by Student's t, since the t of two means
    takes the part's own variance, which is 0 where a few groups err alike: a part of k groups can't reach more than
    about the square root of k here. A group may lie in the part, outside, or in both.

    Args:
        values: one per sample.
        inside: whether each sample is in the part.
        groups: the group of each.
    """
    import numpy as np

    value, is_in = np.asarray(values, dtype=np.float64), np.asarray(inside, dtype=np.float64)
    scores = summed_by_group((value - value.mean()) * (is_in - is_in.mean()), groups)
    tested = clustered_test([*scores], range(len(scores)))
    if tested is not None:
        return tested.p_value
    # Every group says the same: the sign test, which needs no variance.
    return float(min(1.0, 2.0 ** (1 - len(scores)))) if abs(scores[0]) > _NOTHING**0.5 else 1.0


def mean_and_error(values: Sequence[float], groups: Sequence[Hashable]) -> tuple[float, float]:
    """Return the mean of samples in two groups or more and its cluster-robust standard error."""
    import numpy as np

    value = np.asarray(values, dtype=np.float64)
    mean = mean_of(value[:, None], np.ones(len(value)), np.asarray(groups))
    return float(mean.value[0]), float(covariance([(mean, 1.0)], [(mean, 1.0)])[0]) ** 0.5


def places_by_group(groups: Iterable[Hashable]) -> list[list[int]]:
    """Return the places of each group's samples, the groups in the order of their first samples."""
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    return list(places.values())


def summed_by_group(values: Floats, groups: Sequence[Hashable] | None) -> Floats:
    """Return the sums of samples' rows over each group, so that resampling rows resamples groups.

    Args:
        values: one row per sample, [N, ...].
        groups: the group of each; None where each sample is one of its own.
    """
    import numpy as np

    if groups is None:
        return values
    return np.stack([values[places].sum(axis=0) for places in places_by_group(groups)])


def one_per_cluster(
    ids: Iterable[str], groups: Mapping[str, int] | None, prompts: Mapping[str, str] | None, seed: int
) -> list[str]:
    """Return samples that are independent of one another, drawn without a look at any outcome, in the order given.

    Of near-duplicates one prompt, the same whatever the number of answers, and of a prompt one answer.

    Args:
        ids: of the samples.
        groups: of near-duplicates, by sample; None where no prompt repeats another.
        prompts: the prompt of each sample; None where each sample is the one answer to a prompt.
        seed: of the draw.
    """
    if prompts is None:
        return list(ids) if groups is None else one_per_group({id: groups[id] for id in ids}, seed)
    answers: dict[str, list[str]] = {}
    for id in ids:
        answers.setdefault(prompts[id], []).append(id)
    grouped = None if groups is None else {prompt: groups[own[0]] for prompt, own in answers.items()}
    drawing = random.Random(f"answers {seed}")
    drawn = {prompt: drawing.choice(own) for prompt, own in answers.items()}
    return [drawn[prompt] for prompt in one_per_cluster(answers, grouped, None, seed)]


def one_per_group(groups: Mapping[Id, int], seed: int) -> list[Id]:
    """Return one member of each group, drawn without a look at any outcome, in the order given."""
    drawing, ids = random.Random(seed), list(groups)
    drawn = {drawing.choice(places) for places in places_by_group(groups.values())}
    return [id for place, id in enumerate(ids) if place in drawn]
