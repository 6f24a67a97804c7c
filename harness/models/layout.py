"""How the fused tensors of an experts module are laid out, as transformers' decorator declares it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

# What the decorator `use_experts_implementation` sets on an instance, and what every decorated module has besides;
# together they tell a decorated experts module from any other.
_DECORATED = (
    *("has_gate", "has_bias", "is_transposed", "is_concatenated"),
    *("num_experts", "_apply_gate", "down_proj"),
)


@dataclass(frozen=True)
class ExpertLayout:
    """Layout of the weights of one experts module.

    Attributes:
        transposed: an expert's matrices are [in, out]; otherwise [out, in], as a linear layer has them.
        gate: how `gate_up_proj` holds gate and up, one half each or row by row in turn; "none" where the experts
            have no gate and the tensor is called `up_proj`.
        biases: each projection has a bias.
        normed: a norm that all experts of the layer share follows each expert.
    """

    transposed: bool = False
    gate: Literal["concatenated", "interleaved", "none"] = "concatenated"
    biases: bool = False
    normed: bool = False


def is_experts(module: nn.Module) -> bool:
    """Return whether a module is a decorated experts module."""
    return all(hasattr(module, name) for name in _DECORATED)


def layout_of(experts: nn.Module) -> ExpertLayout:
    """Return the layout of a decorated experts module."""
    declared = vars(experts)
    gate: Literal["concatenated", "interleaved", "none"] = "none"
    if declared["has_gate"]:
        gate = "concatenated" if declared["is_concatenated"] else "interleaved"
    return ExpertLayout(
        transposed=declared["is_transposed"],
        gate=gate,
        biases=declared["has_bias"],
        # Came to the decorator later than the others.
        normed=declared.get("has_post_expert_norm", False),
    )
