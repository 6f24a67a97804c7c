"""Directions that stand for groups of hidden states, and how evenly a router made of them spreads tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_RESTARTS, _ITERATIONS = 4, 30


def spherical_k_means(
    points: torch.Tensor, clusters: int, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Cluster directions: the best of several k-means++ starts.

    Args:
        points: [T, H] float32, of any length; only directions count.
        clusters: number of centres, at most T.
        generator: source of the starts.

    Returns:
        Unit centres [clusters, H], and the mean cosine between points and their centres.
    """
    import torch
    from torch.nn.functional import normalize, one_hot

    unit = normalize(points, dim=-1)
    best, best_cosine = unit[:clusters], -math.inf
    for _ in range(_RESTARTS):
        centres = unit[torch.randint(len(unit), (1,), generator=generator)]
        while len(centres) < clusters:
            distance = (1 - (unit @ centres.T).amax(dim=1)).clamp_min(1e-6)
            centres = torch.cat([centres, unit[torch.multinomial(distance, 1, generator=generator)]])
        for _ in range(_ITERATIONS):
            nearest = (unit @ centres.T).argmax(dim=1)
            sums = one_hot(nearest, clusters).to(unit.dtype).T @ unit
            empty = sums.norm(dim=-1, keepdim=True) == 0
            centres = torch.where(empty, centres, normalize(sums, dim=-1))
        cosine = float((unit @ centres.T).amax(dim=1).mean())
        if cosine > best_cosine:
            best, best_cosine = centres, cosine
    return best, best_cosine


def load_entropy(logits: torch.Tensor, top_k: int) -> float:
    """Return the entropy (nats) of the experts' shares when each row of `logits` [T, E] picks its top k."""
    import torch

    picked = logits.topk(top_k, dim=-1).indices.flatten()
    share = torch.bincount(picked, minlength=logits.shape[-1]).double() / picked.numel()
    return float(torch.special.entr(share).sum())
