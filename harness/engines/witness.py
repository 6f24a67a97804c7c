"""Whether an engine serves the weights it was told to: its log-probabilities beside those of transformers.

vLLM reads a checkpoint by its own code, and has served wrong weights after a reload without a word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.models.load import LoadedModel

# Mean absolute differences that two right implementations stay well below, by dtype.
_TOLERANCE = {"float32": 1e-3}
_TOLERANCE_OF_HALF = 0.1


@dataclass(frozen=True)
class Witness:
    """What transformers says of some texts, with the weights that are to be served.

    Attributes:
        texts: token ids.
        log_probs: of each token but the first, given those before it, in nats.
        base: the same of the base model, where other weights are to be served.
        dtype: of the weights.
    """

    texts: list[list[int]]
    log_probs: list[list[float]]
    base: list[list[float]] | None
    dtype: str


@dataclass(frozen=True)
class Agreement:
    """How an engine's log-probabilities compare with a witness's.

    Attributes:
        gap: mean absolute difference, in nats.
        tolerance: the largest gap that is accepted.
        from_base: mean absolute difference of the witness from the base model; None where it is the base model.
        tokens: how many were compared.
    """

    gap: float
    tolerance: float
    from_base: float | None
    tokens: int

    @property
    def holds(self) -> bool:
        """Whether the engine serves what the witness saw."""
        return self.gap <= self.tolerance

    @property
    def telling(self) -> bool:
        """Whether the base model's weights would have been noticed."""
        return self.from_base is None or self.from_base > 2 * self.tolerance


def log_probs_of(loaded: LoadedModel, texts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the log-probability of each token but the first, by the model in memory in the state it is in."""
    import torch

    model = loaded.moe.model
    found = []
    with torch.inference_mode():
        # One at a time: there are few, and padding cannot matter.
        for ids in texts:
            tokens = torch.tensor([list(ids)], device=loaded.device)
            logits = model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
            found.append(logits.log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0].tolist())
    return found


def agreement(served: Sequence[Sequence[float]], witness: Witness) -> Agreement:
    """Compare what an engine says of the witness's texts with what transformers said."""
    return Agreement(
        gap=_mean_gap(served, witness.log_probs),
        tolerance=_TOLERANCE.get(witness.dtype, _TOLERANCE_OF_HALF),
        from_base=None if witness.base is None else _mean_gap(witness.base, witness.log_probs),
        tokens=sum(map(len, witness.log_probs)),
    )


def _mean_gap(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> float:
    gaps = [abs(a - b) for x, y in zip(some, others, strict=True) for a, b in zip(x, y, strict=True)]
    # Not a number is no agreement.
    return math.fsum(gaps) / len(gaps) if all(map(math.isfinite, gaps)) else math.inf
