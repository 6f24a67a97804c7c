"""Sampled answers in transformers, each drawn from random numbers of its own.

transformers draws a batch from one generator, so that an answer depends on what it is generated together with. Here
each answer has its own numbers, one per token, and the token is where the number falls among the probabilities, the
likeliest token first (inverse transform sampling). Variants get the same numbers, so that equal probabilities draw
equal answers, and two variants differ by what was done to them rather than by chance.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessor

if TYPE_CHECKING:
    from harness.engines.base import Sampling


class Drawn(LogitsProcessor):
    """Leaves the drawn token of each answer alone, so that greedy decoding takes it.

    Args:
        sampling: how to draw.
        prompts: the ids of the batch's prompts.
        start: tokens before an answer's first, padding included.
        longest: tokens of an answer at most.
    """

    def __init__(self, sampling: Sampling, prompts: Sequence[str], start: int, longest: int) -> None:
        self._sampling, self._start = sampling, start
        own = [
            random.Random(sampling.seed_of(prompt, number))
            for prompt in prompts
            for number in sampling.numbers
        ]
        self._numbers = torch.tensor([[each.random() for _ in range(longest)] for each in own])

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return scores with which only the drawn tokens can be taken, [B, vocabulary]."""
        number = self._numbers[:, input_ids.shape[1] - self._start, None].to(scores.device)
        drawn = draw(scores, number, self._sampling.temperature, self._sampling.top_p)
        only: torch.FloatTensor = torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)  # type: ignore[assignment]
        return only


def draw(scores: torch.Tensor, number: torch.Tensor, temperature: float, top_p: float = 1.0) -> torch.Tensor:
    """Return the tokens where numbers fall among the probabilities, [B, 1].

    Args:
        scores: logits, [B, vocabulary].
        number: uniform in [0, 1), [B, 1].
        temperature: divides the logits.
        top_p: only the fewest tokens that hold this share of the probability can be drawn.
    """
    # Stable, so that tokens that are equally likely are always in one order.
    ordered, tokens = (scores.float() / temperature).sort(dim=-1, descending=True, stable=True)
    total = ordered.softmax(dim=-1).cumsum(dim=-1)
    # The first token that reaches the share is the last that may be drawn.
    last = (total < top_p).sum(dim=-1, keepdim=True).clamp(max=total.shape[1] - 1)
    place = torch.searchsorted(total, number * total.gather(1, last), right=True)
    return tokens.gather(1, torch.minimum(place, last))
