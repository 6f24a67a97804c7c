"""How far a variant's next-token distributions are from base's, on text that base wrote itself."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from harness.metrics.clustered import summed_by_group


class Share(NamedTuple):
    """One answer: its tokens, and their summed surprise (nats) and KL divergence from base (nats)."""

    tokens: int
    surprise: float
    divergence: float


class Drift(NamedTuple):
    """Over all answers.

    Attributes:
        perplexity: of base's own answers to the variant, exp of the mean surprise of a token.
        kl: KL(base || variant) in nats for each token.
        low: lower end of its 95 % interval over answers, or groups of near-duplicates; None with one.
        high: upper end.
        answers: how many.
        tokens: of them all.
    """

    perplexity: float
    kl: float
    low: float | None
    high: float | None
    answers: int
    tokens: int


def drift(shares: Sequence[Share], seed: int = 0, groups: Sequence[Hashable] | None = None) -> Drift | None:
    """Return the means over tokens.

    Tokens of one answer are not independent, so the interval resamples answers, those to near-duplicates together.

    Args:
        shares: one per answer.
        seed: of the resamples.
        groups: of near-duplicate prompts, the group of each answer; None where all differ.
    """
    import numpy as np

    tokens = np.array([share.tokens for share in shares])
    if not tokens.sum():
        return None
    divergence = np.array([share.divergence for share in shares])
    surprise = math.fsum(share.surprise for share in shares) / int(tokens.sum())
    low = high = None
    of_groups = summed_by_group(np.stack([divergence, tokens], axis=1), groups)
    n = len(of_groups)
    if n > 1:
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), 2000)
        means = (drawn @ of_groups[:, 0]) / np.maximum(drawn @ of_groups[:, 1], 1)
        low, high = (float(end) for end in np.quantile(means, [0.025, 0.975]))
    kl = float(divergence.sum() / tokens.sum())
    return Drift(math.exp(surprise), kl, low, high, len(shares), int(tokens.sum()))
