"""The MoE adapter: where a loaded transformers model keeps its experts and how they are laid out.

transformers 5 decorates the fused experts class of every regular MoE family (`use_experts_implementation`).
A decorated module holds all experts of a layer in tensors whose first dimension is the expert, and is called
with the hidden states, the chosen experts and their weights. The adapter finds these modules; no list of
model types is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import BadInputError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")

# What the decorator sets on an instance; together they tell a decorated experts module from any other.
_DECORATED = ("has_gate", "has_bias", "is_transposed", "is_concatenated", "num_experts", "_apply_gate")


class Expert(NamedTuple):
    """One expert: the layer's true index in the model, dense layers counted too, and its number there."""

    layer: int
    expert: int


@dataclass(frozen=True)
class MoELayer:
    """One MoE layer of a loaded model."""

    name: str
    index: int
    experts: Any  # a decorated experts module; the decorator sets its attributes, which types cannot see
    router: nn.Module | None
    n_experts: int
    weights: tuple[str, ...] = field(default=())

    def weight(self, name: str) -> torch.Tensor:
        """Return a fused tensor, [E, ...]."""
        weight: torch.Tensor = self.experts.get_parameter(name)
        return weight

    @property
    def parameters_per_expert(self) -> int:
        """Number of parameters of one expert of this layer."""
        return sum(self.weight(name)[0].numel() for name in self.weights)


@dataclass(frozen=True)
class MoEModel:
    """A model together with its MoE layers, in the order of the forward pass."""

    model: PreTrainedModel
    layers: tuple[MoELayer, ...]
    experts_per_token: int

    @property
    def layer_indices(self) -> list[int]:
        """True layer indices, one an MoE layer."""
        return [layer.index for layer in self.layers]

    @property
    def n_experts(self) -> int:
        """Experts of a layer (all layers have the same number)."""
        return self.layers[0].n_experts

    def layer(self, index: int) -> MoELayer:
        """Return the MoE layer with this true index.

        Raises:
            BadInputError: that layer is dense or does not exist.
        """
        for layer in self.layers:
            if layer.index == index:
                return layer
        raise BadInputError(f"layer {index} has no experts: the MoE layers are {_ranges(self.layer_indices)}")

    def all_experts(self) -> list[Expert]:
        """Return every expert, layer by layer."""
        return [Expert(layer.index, e) for layer in self.layers for e in range(layer.n_experts)]

    def check(self, experts: Iterable[Expert]) -> None:
        """Refuse experts that do not exist.

        Raises:
            BadInputError: names the first one, and what there is.
        """
        for layer, expert in experts:
            n = self.layer(layer).n_experts
            if not 0 <= expert < n:
                raise BadInputError(f"layer {layer} has no expert {expert}: it has experts 0 to {n - 1}")


def find_moe(model: PreTrainedModel) -> MoEModel:
    """Find the MoE layers of a model.

    Raises:
        BadInputError: the model is dense, or keeps its experts in a way that is not served.
    """
    layers = tuple(
        _moe_layer(model, name, module) for name, module in model.named_modules() if _is_experts(module)
    )
    if not layers:
        raise BadInputError(f"model type '{model.config.model_type}' {_why_not(model)}")
    sizes = {layer.n_experts for layer in layers}
    if len(sizes) > 1:
        raise BadInputError(
            f"model type '{model.config.model_type}' has layers of {sorted(sizes)} experts: expected the same number"
        )
    return MoEModel(model, layers, _experts_per_token(model))


def _is_experts(module: nn.Module) -> bool:
    return all(hasattr(module, name) for name in _DECORATED) and hasattr(module, "down_proj")


def _moe_layer(model: PreTrainedModel, name: str, experts: nn.Module) -> MoELayer:
    found = _LAYER.findall(name)
    if not found:
        raise BadInputError(f"experts module '{name}' of '{model.config.model_type}' is in no numbered layer")
    n_experts = int(getattr(experts, "num_experts"))  # noqa: B009 (nn.Module types attributes as Tensor | Module)
    weights = tuple(
        weight
        for weight, value in experts.named_parameters(recurse=False)
        if value.dim() >= 2 and value.shape[0] == n_experts
    )
    return MoELayer(name, int(found[-1]), experts, _router(model, name, n_experts), n_experts, weights)


def _router(model: PreTrainedModel, experts_name: str, n_experts: int) -> nn.Module | None:
    """Return the module beside the experts whose weight has one row an expert."""
    block = model.get_submodule(experts_name.rpartition(".")[0])
    for child in block.children():
        weight = getattr(child, "weight", None)
        if weight is not None and weight.dim() == 2 and weight.shape[0] == n_experts:
            return child
    return None


def _experts_per_token(model: PreTrainedModel) -> int:
    config = model.config.get_text_config()
    for name in (
        "num_experts_per_tok",
        "moe_top_k",
        "top_k_experts",
        "moe_topk",
        "moe_k",
        "num_experts_per_token",
    ):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    raise BadInputError(
        f"the configuration of '{config.model_type}' does not say how many experts serve a token"
    )


def _why_not(model: PreTrainedModel) -> str:
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in ("num_local_experts", "num_experts", "n_routed_experts")):
        return "keeps its experts outside transformers' fused experts modules, which is not supported"
    return "is dense: no MoE layers were found, and there are no experts to select"


def _ranges(numbers: Sequence[int]) -> str:
    """Write sorted numbers shortly: [0, 1, 2, 5] as '0-2, 5'."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
