"""Which routes of the same tokens differ between two models that have the same MoE layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

# A log-probability that no router reaches by itself: the expert is masked, and KL is infinite.
_NEVER = -6e4


class Routes(NamedTuple):
    """The routing of a batch of `B` left-padded rows of prompt and answer."""

    experts: torch.Tensor  # [L, B, T, k]
    logits: torch.Tensor | None  # [L, B, T, E]

    def on_host(self) -> Routes:
        """Return the same in host memory."""
        return Routes(self.experts.cpu(), None if self.logits is None else self.logits.cpu())


class Changes(NamedTuple):
    """What became of base's routes, by phase: prompt, answer.

    Attributes:
        tokens: compared, [2, B].
        kept: the share of a token's k slots that is kept, summed over tokens, [2, B, L].
        divergence: KL(base || own) of the routers' distributions in nats, summed over tokens, [2, B, L]; infinite where
            an expert has no chance any more, None without logits.
    """

    tokens: npt.NDArray[np.int64]
    kept: npt.NDArray[np.float64]
    divergence: npt.NDArray[np.float64] | None


def changes(base: Routes, own: Routes, answers: Sequence[int], shared: Sequence[int]) -> Changes:
    """Compare the routes of two models.

    Rows are compared from their ends, where both have the same tokens: a variant may have a longer prompt.

    Args:
        base: the routes that are kept or not.
        own: the other model's, of rows that end in the same tokens.
        answers: how many tokens each row's answer has; the last is not compared, since a generation never routes it.
        shared: how many tokens before the answer are compared, B of them.
    """
    import torch

    width, device = min(base.experts.shape[2], own.experts.shape[2]), own.experts.device
    from_end = torch.arange(width, 0, -1, device=device)
    answer, prompt = (torch.tensor(list(n), device=device)[:, None] for n in (answers, shared))
    masks = torch.stack(
        [(from_end > answer) & (from_end <= answer + prompt), (from_end > 1) & (from_end <= answer)]
    ).double()  # [2, B, T]

    def summed(values: torch.Tensor) -> torch.Tensor:  # [B, T] to [2, B]; what is left out may be infinite
        return torch.where(masks > 0, values.double(), 0.0).sum(-1)

    kept, divergence = [], []
    # One layer at a time: distributions of all of them may be larger than the model.
    for layer in range(len(own.experts)):
        before = base.experts[layer, :, -width:].to(device)
        after = own.experts[layer, :, -width:]
        kept.append(summed((before[..., :, None] == after[..., None, :]).any(-1).double().mean(-1)))
        if base.logits is not None and own.logits is not None:
            expected = base.logits[layer, :, -width:].to(device).float().log_softmax(-1)
            found = own.logits[layer, :, -width:].float().log_softmax(-1)
            terms = expected.exp() * (expected - found)
            terms = terms.masked_fill((found < _NEVER) & (expected > _NEVER), torch.inf)
            divergence.append(summed(terms.masked_fill(expected < _NEVER, 0.0).sum(-1)))
    return Changes(
        masks.sum(-1).long().cpu().numpy(),
        torch.stack(kept, -1).cpu().numpy(),
        torch.stack(divergence, -1).cpu().numpy() if divergence else None,
    )


def shared_end(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their ends.

    Examples:
        >>> shared_end([1, 2, 3], [9, 9, 2, 3])
        2
    """
    return shared_start(one[::-1], other[::-1])


def shared_start(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their beginnings.

    Examples:
        >>> shared_start([1, 2, 3], [1, 2, 9, 9])
        2
    """
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
