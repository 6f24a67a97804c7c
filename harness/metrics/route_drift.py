"""How far a variant's routes are from base's on the same tokens: slots kept, and KL of the router's distribution."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.metrics.clustered import summed_by_group

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Kind = Literal["harmful", "benign"]
Phase = Literal["prompt", "answer"]
KINDS: tuple[Kind, ...] = ("harmful", "benign")
PHASES: tuple[Phase, ...] = ("prompt", "answer")
_RESAMPLES = 2000


class RouteDrift(NamedTuple):
    """Over the prompts of a kind.

    Attributes:
        kind: of prompts.
        phase: which tokens.
        layer: true index of the layer; None over all MoE layers.
        prompts: how many.
        tokens: of them all.
        kept: share of the top-k slots, over tokens, whose expert is among base's k.
        kept_low: lower end of its 95 % interval over prompts, or groups of near-duplicates; None with one.
        kept_high: upper end.
        kl: KL(base || variant) of the router's distribution in nats per token and layer; None where the variant gives
            an expert no chance at all (it is infinite), or routers say no logits.
        kl_low: lower end of its interval.
        kl_high: upper end.
    """

    kind: Kind
    phase: Phase
    layer: int | None
    prompts: int
    tokens: int
    kept: float
    kept_low: float | None = None
    kept_high: float | None = None
    kl: float | None = None
    kl_low: float | None = None
    kl_high: float | None = None


def route_drift(
    kind: Kind,
    phase: Phase,
    layers: tuple[int, ...],
    tokens: npt.NDArray[np.int64],
    kept: npt.NDArray[np.float64],
    divergence: npt.NDArray[np.float64] | None,
    seed: int = 0,
    groups: Sequence[Hashable] | None = None,
) -> Iterator[RouteDrift]:
    """Yield the figures over all layers, then layer by layer; nothing without a token.

    Tokens of one prompt are not independent, so intervals resample prompts, near-duplicates together.

    Args:
        kind: of the prompts.
        phase: of the tokens.
        layers: true indices of the L MoE layers.
        tokens: compared per prompt, [N].
        kept: the share of slots kept, summed over a prompt's tokens, [N, L].
        divergence: KL in nats, summed likewise, [N, L].
        seed: of the resamples.
        groups: of near-duplicates, the group of each prompt; None where all differ.
    """
    import numpy as np

    n, total = int((tokens > 0).sum()), int(tokens.sum())
    if not total:
        return
    some = tokens > 0
    own = None if groups is None else [group for group, counts in zip(groups, some, strict=True) if counts]
    tokens = summed_by_group(tokens[some], own)
    units = len(tokens)
    drawing = np.random.default_rng(seed)
    drawn = drawing.multinomial(units, np.full(units, 1 / units), _RESAMPLES) if units > 1 else None

    def mean(sums: npt.NDArray[np.float64]) -> tuple[float | None, float | None, float | None]:
        if not np.isfinite(sums).all():
            return None, None, None
        value = float(sums.sum() / total)
        if drawn is None:
            return value, None, None
        low, high = np.quantile((drawn @ summed_by_group(sums, own)) / (drawn @ tokens), [0.025, 0.975])
        return value, min(float(low), value), max(float(high), value)

    for place in (None, *range(len(layers))):
        columns = slice(None) if place is None else slice(place, place + 1)
        share, low, high = mean(kept[some, columns].mean(axis=1))
        if share is None:
            raise ValueError("a share of slots is not a number")
        kl = (None, None, None) if divergence is None else mean(divergence[some, columns].mean(axis=1))
        layer = None if place is None else layers[place]
        yield RouteDrift(kind, phase, layer, n, total, share, low, high, *kl)
