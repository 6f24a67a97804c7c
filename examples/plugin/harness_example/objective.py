"""An objective: refusals, with some probability left for every other token (label smoothing)."""

from __future__ import annotations

import torch
from torch.nn import functional

from harness.training.objectives import Objective, Reading


def smoothed(reading: Reading, weight: float = 1.0, tokens: int = 1) -> torch.Tensor:
    """Return the cross-entropy of the answer tokens against smoothed targets, summed, times weight / tokens."""
    targets = reading.batch.targets

    def piece(logits: torch.Tensor, part: slice) -> torch.Tensor:
        return functional.cross_entropy(logits, targets[part], reduction="sum", label_smoothing=0.1)

    return reading.answers.loss(piece, weight, tokens)


REFUSE_GENTLY = Objective("refuse", smoothed)
