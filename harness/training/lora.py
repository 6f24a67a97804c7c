"""Low-rank training of selected experts (LoRA, arXiv:2106.09685).

Each matrix of each expert gets factors of its own. The bank runs on the sum of the frozen matrix and their product,
formed in float32 and rounded to the model's dtype once: the same values that a merge writes. So merging is exact,
and a rank costs optimizer state and delta updates, not another path through the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from harness.config import TrainingConfig


@dataclass(frozen=True)
class Lora:
    """Settings of low-rank training: the update of a matrix is alpha / rank times the product of its factors."""

    rank: int
    alpha: float


def lora_of(config: TrainingConfig) -> Lora | None:
    """Return the settings of low-rank training, None where experts are trained in full."""
    return None if config.lora_rank is None else Lora(config.lora_rank, config.lora_alpha)


class LowRank(nn.Module):
    """The factors of one fused tensor's selected experts.

    As LoRA starts: random on the side of the input, zero on the side of the output, so that nothing changes at first.

    Args:
        shape: of the selected experts' matrices, [B, out, in] or transposed [B, in, out].
        lora: rank and alpha. Gate and up, fused in one matrix, share the factor on the side of the input.
        transposed: how a matrix is stored.
        dtype: of the factors.
        device: of the factors.
    """

    def __init__(
        self,
        shape: torch.Size,
        lora: Lora,
        *,
        transposed: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        n, rows, columns = shape
        self.scale = lora.alpha / lora.rank
        self.left = nn.Parameter(torch.zeros(n, rows, lora.rank, dtype=dtype, device=device))
        self.right = nn.Parameter(torch.zeros(n, lora.rank, columns, dtype=dtype, device=device))
        inputs, fan_in = (self.left, rows) if transposed else (self.right, columns)
        bound = 1 / math.sqrt(fan_in)
        nn.init.uniform_(inputs, -bound, bound)

    def forward(self, frozen: torch.Tensor) -> torch.Tensor:
        """Return the frozen matrices, [B, ...], with the factors' product, in the factors' dtype."""
        return torch.baddbmm(frozen.to(self.left.dtype), self.left, self.right, alpha=self.scale)
