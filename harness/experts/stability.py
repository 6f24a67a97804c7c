"""Would other prompts have led to the same experts? How often an expert is selected from half of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.base.errors import BadInputError
from harness.experts.permutation import Direction, weighed_prompts

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]


def stability(
    used: Floats,
    weight: Floats,
    unsafe: npt.NDArray[np.bool_],
    *,
    top_k: int,
    half_samples: int = 200,
    seed: int,
    direction: Direction = "unsafe",
) -> npt.NDArray[np.float64]:
    """Return the share of random half-samples in which an expert is among the top_k of the model, [L, E].

    A half-sample is half of the prompts of each group, rounded down, drawn without replacement (Meinshausen and
    Bühlmann, Journal of the Royal Statistical Society B 72 (2010) 417). Experts rank by R_unsafe - R_safe, with
    R = sum(used) / sum(weight) of a group; equal ones by layer and expert, as when experts are selected. A half-sample
    is smaller than what a selection sees, so a selection from all prompts is somewhat more stable than this says.

    Args:
        used: [N, L, E], what each prompt gave each expert.
        weight: [N], routed tokens of the prompt, or ones. Prompts of weight 0 say nothing and are left out.
        unsafe: [N], which prompts are harmful.
        top_k: how many experts a selection takes over all layers together.
        half_samples: how many are drawn.
        seed: of the half-samples.
        direction: "unsafe" ranks by the highest risk difference, "safe" by the lowest.

    Raises:
        BadInputError: a group has fewer than 4 prompts, or top_k or half_samples is out of range.
    """
    used, weight, unsafe = weighed_prompts(used, weight, unsafe)
    n_experts = used[0].size
    if not 1 <= top_k <= n_experts:
        raise BadInputError(f"top_k = {top_k}: expected 1 to {n_experts}, the experts of the model")
    if half_samples < 1:
        raise BadInputError(f"half_samples = {half_samples}: expected 1 or more")
    generator = np.random.default_rng(seed)
    unsafe_rate = _half_rates(generator, used[unsafe], weight[unsafe], half_samples)
    safe_rate = _half_rates(generator, used[~unsafe], weight[~unsafe], half_samples)
    difference = unsafe_rate - safe_rate if direction == "unsafe" else safe_rate - unsafe_rate
    selected = np.argsort(-difference, axis=1, kind="stable")[:, :top_k]
    times = np.bincount(selected.ravel(), minlength=n_experts)
    return (times / half_samples).reshape(used.shape[1:])


def _half_rates(
    generator: np.random.Generator, used: Floats, weight: Floats, half_samples: int
) -> npt.NDArray[np.float64]:
    """Return a group's usage in each half-sample: used [n, L, E], weight [n], to [half_samples, L * E]."""
    n = len(used)
    first_half = np.broadcast_to(np.arange(n) < n // 2, (half_samples, n))
    chosen = generator.permuted(first_half, axis=1).astype(np.float64)
    rates: npt.NDArray[np.float64] = (chosen @ used.reshape(n, -1)) / (chosen @ weight)[:, None]
    return rates
