"""How sure is an expert's risk difference? Bootstrap intervals, for all experts at once.

Prompts are resampled, never tokens: the tokens of a prompt or an answer depend on one another, and an interval that
took them for independent would be far too narrow. Near-duplicate prompts are resampled together: their rows are summed
first (`Usage.summed`). Shapes: N prompts, L MoE layers, E experts, B resamples; `used`
and `weight` are a usage view as in `harness.experts.permutation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.base.errors import BadInputError
from harness.experts.permutation import check_pairs, weighed_prompts

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]

FEWEST_RESAMPLES = 100


class Ends(NamedTuple):
    """The ends of the percentile intervals of all experts.

    Attributes:
        low: [L, E].
        high: [L, E].
    """

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def bootstrap_interval(
    used: Floats,
    weight: Floats,
    unsafe: npt.NDArray[np.bool_],
    *,
    resamples: int = 2_000,
    seed: int,
    level: float = 0.95,
) -> Ends:
    """Return an interval of the risk difference R_unsafe - R_safe, with R = sum(used) / sum(weight) of a group.

    Each resample draws prompts with replacement within each group, as many as the group has, by multinomial weights;
    the interval lies between percentiles of the resampled differences (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13). It is for one expert, not for all at once, and too narrow where few prompts
    use the expert: what no sampled prompt did is not in it. An expert that no prompt uses has the interval 0 to 0.

    Args:
        used: [N, L, E], what each prompt gave each expert.
        weight: [N], routed tokens of the prompt, or ones. Prompts of weight 0 say nothing and are left out.
        unsafe: [N], which prompts are harmful.
        resamples: B.
        seed: of the resamples.
        level: the share of resampled differences between low and high.

    Raises:
        BadInputError: a group has fewer than 4 prompts, or there are fewer than 100 resamples.
    """
    used, weight, unsafe = weighed_prompts(used, weight, unsafe)
    generator = np.random.default_rng(seed)
    draws = {group: _draws(generator, int((unsafe == group).sum()), resamples) for group in (True, False)}
    ends = np.empty((2, *used.shape[1:]))
    for layer in range(used.shape[1]):
        by_group = {}
        for group, drawn in draws.items():
            of_group, tokens = used[unsafe == group, layer].astype(np.float64), weight[unsafe == group]
            rate = of_group.sum(axis=0) / tokens.sum()
            # Around the group's own rate, so that float32 sums don't cancel.
            residuals = of_group - tokens[:, None] * rate
            by_group[group] = rate + _ratio(drawn, residuals, tokens)
        ends[:, layer] = _percentiles(by_group[True] - by_group[False], level)
    return Ends(ends[0], ends[1])


def paired_interval(
    differences: Floats,
    sizes: Floats | None = None,
    *,
    resamples: int = 2_000,
    seed: int,
    level: float = 0.95,
) -> Ends:
    """Return an interval of the mean difference between harmful prompts and their benign twins.

    Pairs are resampled whole, and each counts once.

    Args:
        differences: [pairs, L, E], the harmful prompt's usage less its twin's, each a rate of its own prompt; or
            sums of them over groups of pairs, which are then resampled whole.
        sizes: [groups], how many pairs each group has; None where each row is a pair.
        resamples: B.
        seed: of the resamples.
        level: as in `bootstrap_interval`.

    Raises:
        BadInputError: there are fewer than 4 pairs, or fewer than 100 resamples.
    """
    check_pairs(differences)
    drawn = _draws(np.random.default_rng(seed), len(differences), resamples)
    counted = np.ones(len(differences)) if sizes is None else sizes
    ends = np.empty((2, *differences.shape[1:]))
    for layer in range(differences.shape[1]):
        ends[:, layer] = _percentiles(_ratio(drawn, differences[:, layer], counted), level)
    return Ends(ends[0], ends[1])


def _draws(generator: np.random.Generator, n: int, resamples: int) -> npt.NDArray[np.float32]:
    """Return how often each resample drew each of n prompts, [B, n]."""
    if resamples < FEWEST_RESAMPLES:
        raise BadInputError(f"resamples = {resamples}: expected {FEWEST_RESAMPLES} or more")
    return generator.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float32)


def _ratio(drawn: npt.NDArray[np.float32], used: Floats, weight: Floats) -> npt.NDArray[np.float64]:
    """Return sum(used) / sum(weight) of each resample: drawn [B, n], used [n, E], weight [n], to [B, E]."""
    ratio: npt.NDArray[np.float64] = (drawn @ used.astype(np.float32)) / (drawn @ weight)[:, None]
    return ratio


def _percentiles(differences: npt.NDArray[np.float64], level: float) -> npt.NDArray[np.float64]:
    tail = (1 - level) / 2
    return np.quantile(differences, [tail, 1 - tail], axis=0)
