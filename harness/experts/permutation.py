"""Could chance alone have made an expert look used more? Permutation tests, for all experts at once.

Shapes: N prompts, L MoE layers, E experts, P permutations. A prompt is the unit throughout: its tokens depend on
one another, so they are never shuffled apart. Near-duplicate prompts are permuted together: the caller sums their rows
first (`Usage.summed`), and a "prompt" below is then a group. The module works on a usage view: what each prompt gives
each expert (`used`: routed tokens, gate mass, or 0 and 1 for presence) and what it could have given (`weight`: its
routed tokens, or 1 where each prompt counts once). A group's usage is the ratio R = sum(used) / sum(weight).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]

Direction = Literal["unsafe", "safe"]

FEWEST_PROMPTS = 4
FEWEST_PERMUTATIONS = 100

# Permutations handled at once: big enough for fast matrix products, small enough to stay in a few dozen MB.
_CHUNK = 1_000
# Products are in float32. Statistics that differ by less than this are ties, and count as exceedances.
_TIE = 1e-4
# The least experts of a layer whose null values are pooled (all, where it has fewer).
_STRATUM = 32
# Exceedances in an expert's own null from which on its own p-value is taken seriously.
_OWN = 10
# Squared residuals below this share of the squared usage are rounding: the expert is used alike by all prompts.
_ROUNDING = 1e-12


class PermutationTest(NamedTuple):
    """A one-sided test of each expert.

    Attributes:
        statistic: [L, E], the studentised difference, unsafe less safe whatever the direction of the test.
        p_value: [L, E], in the direction asked for.
    """

    statistic: npt.NDArray[np.float64]
    p_value: npt.NDArray[np.float64]


def permutation_test(
    used: Floats,
    weight: Floats,
    unsafe: npt.NDArray[np.bool_],
    *,
    permutations: int = 10_000,
    seed: int,
    direction: Direction = "unsafe",
) -> PermutationTest:
    """Test whether harmful prompts use an expert more than benign ones, or less.

    The prompts' labels are permuted. The test has one side because usage in a layer sums to a constant: one
    expert that is raised lowers its layer-mates, and a test with two sides would select those as well.

    The statistic is t = (R_unsafe - R_safe) / sqrt(V). V is the larger of two estimates of the variance. One is
    V_unsafe + V_safe with the linearised variance of a ratio, n / (n - 1) * sum (used - R weight)^2 /
    (sum weight)^2 (Cochran, Sampling Techniques, 3rd ed. 1977, section 6.4). It keeps the test honest where the
    groups differ in spread alone (Janssen, Statistics & Probability Letters 36 (1997) 9). The other is the same
    with the residuals of all prompts, as if there were one group. The first alone breaks down for
    rare experts: when none of the few prompts that use one falls into the smaller group, that group adds no
    variance and t explodes. The second alone is skewed where the groups are of unequal size.

    Null values are pooled: p = (1 + null values >= t) / (1 + null values). An expert's own P values resolve
    1 / (1 + P) at best, which can't reach q = 0.05 among thousands of experts. Pooling is calibrated on average: if
    no expert of a pool differed, the expected share with p <= x would be x, so the expected number of false
    discoveries is right while single experts deviate, since a rare expert's null has a lighter tail than a busy one's
    and lends it to all. Two things keep the deviation small. A pool is a stratum of 32 or more experts of one layer
    that are alike in their effective number of prompts, sum(e^2)^2 / sum(e^4) of the residuals e, which no
    label enters. And wherever an expert's own null has enough exceedances to contradict its pool (10 or more), p is
    the larger of both. docs/results/selection-simulations.md says what is left.

    Time and memory: a float32 product of [P, N] with [N, 3 E] for each layer, so time grows with P N L E. Memory is
    P N bytes of labels and P E values of one layer, whatever L is.

    Args:
        used: [N, L, E], what each prompt gave each expert.
        weight: [N], routed tokens of the prompt, or ones. Prompts of weight 0 say nothing and are left out.
        unsafe: [N], which prompts are harmful.
        permutations: P. The least p-value is 1 / (1 + P * experts of a pool); with pools of 32, a lone expert among
            6,144 can only be selected at q <= 0.05 where P is above 3,840.
        seed: of the permutations.
        direction: "unsafe" looks for experts used more on harmful prompts, "safe" for those used less.

    Returns:
        Statistic 0 and p-value 1 where no prompt uses an expert, or all use it alike; such experts are not pooled.

    Raises:
        BadInputError: a group has fewer than 4 prompts, or there are fewer than 100 permutations.
    """
    used, weight, unsafe = weighed_prompts(used, weight, unsafe)
    _check_permutations(permutations)
    labels = np.random.default_rng(seed).permuted(
        np.broadcast_to(unsafe, (permutations, len(unsafe))), axis=1
    )
    sign = 1.0 if direction == "unsafe" else -1.0
    scale = weight / weight.mean()
    statistic = np.zeros(used.shape[1:])
    p_value = np.ones(used.shape[1:])
    for layer in range(used.shape[1]):
        residuals, live = _residuals(used[:, layer].astype(np.float64), scale)
        observed = _studentised(unsafe[None], residuals, scale)[0]
        null = np.concatenate(
            [
                _studentised(labels[start : start + _CHUNK], residuals, scale)
                for start in range(0, permutations, _CHUNK)
            ]
        )
        statistic[layer, live] = observed
        p_value[layer, live] = _pooled_p_value(sign * observed, sign * null, _strata(residuals))
    return PermutationTest(statistic, p_value)


def paired_test(
    differences: Floats, *, permutations: int = 10_000, seed: int, direction: Direction = "unsafe"
) -> PermutationTest:
    """Test whether harmful prompts use an expert more than their own benign twins do, or less.

    What a pair shares, such as its topic, cancels. The sign of each pair's difference is flipped. The statistic is
    sum(d) / sqrt(sum(d^2)), which grows with the paired t and has a null no heavier than the normal's bound
    exp(-t^2 / 2) for any expert, rare ones included (Efron, JASA 64 (1969) 1278). Pooling as in `permutation_test`.

    Args:
        differences: [pairs, L, E], the harmful prompt's usage less its twin's, each a rate of its own prompt; or
            sums of them over groups of pairs that repeat one another, whose signs are then flipped together.
        permutations: P, how often signs are drawn.
        seed: of the signs.
        direction: as in `permutation_test`.

    Raises:
        BadInputError: there are fewer than 4 pairs, or fewer than 100 permutations.
    """
    check_pairs(differences)
    _check_permutations(permutations)
    pairs, n_layers, _ = differences.shape
    signs = np.random.default_rng(seed).integers(0, 2, size=(permutations, pairs), dtype=np.int8) * 2 - 1
    sign = 1.0 if direction == "unsafe" else -1.0
    statistic = np.zeros(differences.shape[1:])
    p_value = np.ones(differences.shape[1:])
    for layer in range(n_layers):
        size = np.linalg.norm(differences[:, layer].astype(np.float64), axis=0)
        live = size > 0
        unit = differences[:, layer, live] / size[live]
        observed = unit.sum(axis=0)
        unit32 = unit.astype(np.float32)
        null = np.concatenate(
            [
                signs[start : start + _CHUNK].astype(np.float32) @ unit32
                for start in range(0, permutations, _CHUNK)
            ]
        )
        statistic[layer, live] = observed
        p_value[layer, live] = _pooled_p_value(sign * observed, sign * null, _strata(unit))
    return PermutationTest(statistic, p_value)


def q_values(p_value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the false discovery rate at which each expert would just be selected (Benjamini and Hochberg, 1995).

    Args:
        p_value: of any shape, one family. NaN stays NaN and does not count for the family.
    """
    from scipy.stats import false_discovery_control

    known = ~np.isnan(p_value)
    q_value = np.full(p_value.shape, np.nan)
    if known.any():
        q_value[known] = false_discovery_control(p_value[known], method="bh")
    return q_value


def weighed_prompts(
    used: Floats, weight: Floats, unsafe: npt.NDArray[np.bool_]
) -> tuple[Floats, npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the prompts that have a weight, after making sure that each group has enough of them.

    Args:
        used: [N, L, E].
        weight: [N].
        unsafe: [N].

    Raises:
        BadInputError: a group has fewer than 4 prompts.
        ValueError: the shapes do not fit one another, or a number is not finite.
    """
    if used.ndim != 3 or weight.shape != used.shape[:1] or unsafe.shape != used.shape[:1]:
        raise ValueError(
            f"shapes do not fit: used {used.shape}, weight {weight.shape}, unsafe {unsafe.shape}"
        )
    if not (np.isfinite(used).all() and np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError("used and weight must be finite, and weight not negative")
    weighed, unsafe = weight > 0, unsafe.astype(bool)
    for name, group in (("harmful", unsafe), ("benign", ~unsafe)):
        n = int((weighed & group).sum())
        if n < FEWEST_PROMPTS:
            raise BadInputError(
                f"the statistics of the expert table need {FEWEST_PROMPTS} {name} prompts with routed tokens or "
                f"more, found {n} (near-duplicates count once)"
            )
    if weighed.all():
        return used, weight.astype(np.float64), unsafe
    return used[weighed], weight[weighed].astype(np.float64), unsafe[weighed]


def check_pairs(differences: Floats) -> None:
    """Make sure that there are enough matched pairs.

    Args:
        differences: [pairs, L, E].

    Raises:
        BadInputError: there are fewer than 4 pairs.
        ValueError: the shape is another, or a number is not finite.
    """
    if differences.ndim != 3 or not np.isfinite(differences).all():
        raise ValueError("differences must be finite numbers [pairs, L, E]")
    if len(differences) < FEWEST_PROMPTS:
        raise BadInputError(
            f"the statistics of matched pairs need {FEWEST_PROMPTS} pairs or more, found {len(differences)} "
            "(pairs that repeat one another count once)"
        )


def _check_permutations(permutations: int) -> None:
    if permutations < FEWEST_PERMUTATIONS:
        raise BadInputError(f"permutations = {permutations}: expected {FEWEST_PERMUTATIONS} or more")


def _residuals(
    used: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return used - R0 * weight of the live experts, [N, live], scaled to unit length, and which [E] are live.

    R0 is the rate of all prompts together. Residuals instead of usage keep float32 sums from cancelling, and the
    statistic does not depend on their scale.
    """
    residuals = used - weight[:, None] * (used.sum(axis=0) / weight.sum())
    squares = np.einsum("ne,ne->e", residuals, residuals)
    live = squares > _ROUNDING * np.einsum("ne,ne->e", used, used)
    return residuals[:, live] / np.sqrt(squares[live]), live


def _studentised(
    labels: npt.NDArray[np.bool_], residuals: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """Return t for each labelling: labels [P, N], residuals [N, E] of unit length that sum to zero, weight [N].

    All sums over the safe group are those over all prompts less those over the unsafe group.
    """
    n, n_unsafe = labels.shape[1], int(labels[0].sum())
    n_safe, n_experts = n - n_unsafe, residuals.shape[1]
    weighted, weights = residuals * weight[:, None], np.stack([weight, weight**2], axis=1)
    columns = np.concatenate([residuals, residuals**2, weighted, weights], axis=1).astype(np.float32)
    sums = labels.astype(np.float32) @ columns
    total, squares, crossed = (sums[:, i * n_experts : (i + 1) * n_experts] for i in range(3))
    of_unsafe = sums[:, 3 * n_experts :]
    of_safe = weights.sum(axis=0, dtype=np.float32) - of_unsafe
    unsafe_weight, unsafe_weight2 = of_unsafe[:, :1], of_unsafe[:, 1:]
    safe_weight, safe_weight2 = of_safe[:, :1], of_safe[:, 1:]
    unsafe_rate, safe_rate = total / unsafe_weight, total / -safe_weight
    unsafe_scale = np.float32(n_unsafe / (n_unsafe - 1)) / unsafe_weight**2
    safe_scale = np.float32(n_safe / (n_safe - 1)) / safe_weight**2

    variance = (squares + unsafe_rate * (unsafe_rate * unsafe_weight2 - 2 * crossed)) * unsafe_scale
    crossed = weighted.sum(axis=0, dtype=np.float32) - crossed
    variance += (1 - squares + safe_rate * (safe_rate * safe_weight2 - 2 * crossed)) * safe_scale
    as_one_group = (n_unsafe / unsafe_weight**2 + n_safe / safe_weight**2) / np.float32(n - 1)
    t: npt.NDArray[np.float32] = (unsafe_rate - safe_rate) / np.sqrt(np.maximum(variance, as_one_group))
    return t


def _strata(residuals: npt.NDArray[np.float64]) -> list[npt.NDArray[np.intp]]:
    """Part the experts of a layer, [N, E] of unit length, into strata of alike effective numbers of prompts."""
    squares = residuals * residuals
    effective_prompts = 1 / (squares * squares).sum(axis=0)
    order = np.argsort(effective_prompts, kind="stable")
    return np.array_split(order, max(1, len(order) // _STRATUM))


def _pooled_p_value(
    observed: Floats, null: Floats, strata: list[npt.NDArray[np.intp]]
) -> npt.NDArray[np.float64]:
    """Return upper-tail p-values of observed [E] against the null values [P, E], pooled within strata of experts."""
    least = (observed - _TIE).astype(np.float32)
    own = (null >= least).sum(axis=0)
    p_value = np.where(own >= _OWN, (1 + own) / (1 + len(null)), 0)
    for stratum in strata:
        pool = np.sort(null[:, stratum], axis=None)
        exceed = pool.size - np.searchsorted(pool, least[stratum], side="left")
        p_value[stratum] = np.maximum(p_value[stratum], (1 + exceed) / (1 + pool.size))
    return p_value
