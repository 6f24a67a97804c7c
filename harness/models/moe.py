"""The MoE adapter: where a loaded transformers model keeps its experts and how they are laid out.

transformers 5 decorates the fused experts class of every regular MoE family (`use_experts_implementation`).
A decorated module holds all experts of a layer in tensors whose first dimension is the expert, and is called
with the hidden states, the chosen experts and their weights. The adapter finds these modules; a list of model
types is needed only for the exceptions (harness/models/unserved.yaml).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.errors import BadInputError
from harness.models.layout import ExpertLayout, is_experts, layout_of
from harness.models.unserved import why_refused

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
# Experts that text never reaches.
_OTHER_INPUT = re.compile(r"(?:^|\.)(?:vision|visual|audio)")
SHARED = re.compile(r"shared_(?:experts?|mlp)")

# How configurations call k, and the experts that serve every token.
_EXPERTS_PER_TOKEN = (
    *("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk", "moe_k", "top_k_experts"),
)
_GROUPS = ("n_group", "num_expert_group", "n_expert_groups")
_SHARED_EXPERTS = (
    *("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert"),
)


class Expert(NamedTuple):
    """One expert: the layer's true index in the model, dense layers counted too, and its number there."""

    layer: int
    expert: int


def by_layer(experts: Iterable[Expert]) -> dict[int, list[int]]:
    """Return the sorted expert numbers of each layer, layers in order."""
    layers: dict[int, list[int]] = {}
    for layer, expert in sorted(set(experts)):
        layers.setdefault(layer, []).append(expert)
    return layers


@dataclass(frozen=True)
class MoELayer:
    """One MoE layer of a loaded model.

    Attributes:
        name: of the experts module.
        index: true index of the layer, dense layers counted too.
        experts: the decorated experts module.
        router: the module whose weight has one row per expert, or None where there is none.
        n_experts: E.
        weights: names of the fused tensors, each [E, ...].
        layout: how these are laid out.
        experts_per_token: k.
        shared_experts: experts beside them that serve every token.
    """

    name: str
    index: int
    experts: Any  # a decorated experts module; the decorator sets its attributes, which types cannot see
    router: nn.Module | None
    n_experts: int
    weights: tuple[str, ...] = ()
    layout: ExpertLayout = field(default_factory=ExpertLayout)
    experts_per_token: int = 0
    shared_experts: int = 0

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
        """True layer indices, one per MoE layer."""
        return [layer.index for layer in self.layers]

    @property
    def n_experts(self) -> int:
        """Experts of a layer (all layers have the same number); 0 of a dense model."""
        return self.layers[0].n_experts if self.layers else 0

    @property
    def n_parameters(self) -> int:
        """Parameters of the whole model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def layer(self, index: int) -> MoELayer:
        """Return the MoE layer with this true index.

        Raises:
            BadInputError: that layer is dense or does not exist.
        """
        for layer in self.layers:
            if layer.index == index:
                return layer
        raise BadInputError(f"layer {index} has no experts: the MoE layers are {ranges(self.layer_indices)}")

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


def find_moe(model: PreTrainedModel, may_be_dense: bool = False) -> MoEModel:
    """Find the MoE layers of a model.

    Args:
        model: with or without weights.
        may_be_dense: a model without experts is one without MoE layers, where nothing has to be routed.

    Raises:
        BadInputError: the model is dense, or keeps its experts in a way that is not served.
    """
    kind = f"model type '{model.config.model_type}'"
    refused = why_refused(model.config.to_dict())
    if refused:
        raise BadInputError(f"{kind} {refused}")
    layers = tuple(
        _moe_layer(model, name, module)
        for name, module in model.named_modules()
        if is_experts(module) and not _OTHER_INPUT.search(name)
    )
    if not layers and may_be_dense and not _declares_experts(model):
        return MoEModel(model, (), 0)
    if not layers:
        raise BadInputError(f"{kind} {_why_not(model)}")
    indices = [layer.index for layer in layers]
    if len(set(indices)) < len(indices):
        twice = next(index for index in indices if indices.count(index) > 1)
        raise BadInputError(f"{kind} has several experts modules in layer {twice}: expected one per layer")
    wrong = next((layer for layer in layers if not 0 < layer.experts_per_token <= layer.n_experts), None)
    if wrong is not None:
        raise BadInputError(
            f"config.json says that a token uses {wrong.experts_per_token} experts: expected 1 to {wrong.n_experts}, "
            f"as many as layer {wrong.index} has"
        )
    _check_groups(model, layers[0])
    for what, values in (
        ("experts", {layer.n_experts for layer in layers}),
        ("experts per token", {layer.experts_per_token for layer in layers}),
    ):
        if len(values) > 1:
            raise BadInputError(f"{kind} has layers of {sorted(values)} {what}: expected the same number")
    return MoEModel(model, layers, layers[0].experts_per_token)


def _moe_layer(model: PreTrainedModel, name: str, experts: nn.Module) -> MoELayer:
    numbers = _LAYER.findall(name)
    if not numbers:
        raise BadInputError(f"experts module '{name}' of '{model.config.model_type}' is in no numbered layer")
    n_experts = int(getattr(experts, "num_experts"))  # noqa: B009 (nn.Module types attributes as Tensor | Module)
    weights = tuple(
        weight
        for weight, value in experts.named_parameters(recurse=False)
        if value.dim() >= 2 and value.shape[0] == n_experts
    )
    block = model.get_submodule(name.rpartition(".")[0])
    return MoELayer(
        name=name,
        index=int(numbers[-1]),
        experts=experts,
        router=_router(block, n_experts),
        n_experts=n_experts,
        weights=weights,
        layout=layout_of(experts),
        experts_per_token=_experts_per_token(model, block),
        shared_experts=_shared_experts(model, name),
    )


def _gates(block: nn.Module) -> list[nn.Module]:
    """Return the routing modules beside the experts."""
    return [child for name, child in block.named_children() if name in ("gate", "router")]


def _router(block: nn.Module, n_experts: int) -> nn.Module | None:
    """Return the routing module whose weight has one row per expert, which may lie inside another.

    Rows that are no experts (inkling's shared ones) make the weight unusable: then there is no router.
    """
    for gate in _gates(block):
        for module in gate.modules():
            weight = getattr(module, "weight", None)
            if weight is not None and weight.dim() == 2 and weight.shape[0] == n_experts:
                return module
    return None


def _experts_per_token(model: PreTrainedModel, block: nn.Module) -> int:
    """Return k as the routing module itself has it, since it may differ by layer; else the configuration's."""
    for module in (*_gates(block), block):
        value = getattr(module, "top_k", None)
        if isinstance(value, int):
            return value
    config = model.config.get_text_config()
    for name in _EXPERTS_PER_TOKEN:
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    raise BadInputError(
        f"the configuration of '{config.model_type}' does not say how many experts serve a token"
    )


def _check_groups(model: PreTrainedModel, layer: MoELayer) -> None:
    """Refuse groups of experts that the experts cannot be divided into, or that leave a token too few."""
    config = model.config.get_text_config()
    groups = next((value for name in _GROUPS if isinstance(value := getattr(config, name, None), int)), 1)
    chosen = getattr(config, "topk_group", None)
    chosen = chosen if isinstance(chosen, int) else groups
    if groups in (0, 1):
        return
    size = layer.n_experts // max(groups, 1)
    if groups < 0 or layer.n_experts % groups or not 0 < chosen <= groups:
        raise BadInputError(
            f"config.json says that a token chooses {chosen} of {groups} groups of experts: expected groups that "
            f"divide {layer.n_experts} experts, and no more than there are"
        )
    if layer.experts_per_token > chosen * size:
        raise BadInputError(
            f"config.json says that a token uses {layer.experts_per_token} experts of {chosen} groups of {size}: "
            f"expected {chosen * size} at most"
        )


def _shared_experts(model: PreTrainedModel, name: str) -> int:
    """Return how many experts serve every token: in the block, or in the modules around it in the layer."""
    config = model.config.get_text_config()
    while _LAYER.search(f"{name}."):
        name = name.rpartition(".")[0]
        for child, module in model.get_submodule(name).named_children():
            if module is not None and SHARED.fullmatch(child):
                declared = [getattr(config, key, None) for key in _SHARED_EXPERTS]
                return next((count for count in declared if isinstance(count, int)), 1)
    return 0


def _declares_experts(model: PreTrainedModel) -> bool:
    config = model.config.get_text_config()
    names = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    return any(getattr(config, name, None) for name in names)


def _why_not(model: PreTrainedModel) -> str:
    if _declares_experts(model):
        return "keeps its experts outside transformers' fused experts modules, which is not supported"
    return "is dense: no MoE layers were found, and there are no experts to select"


def ranges(numbers: Sequence[int]) -> str:
    """Abbreviate sorted numbers.

    Examples:
        >>> ranges([0, 1, 2, 5])
        '0-2, 5'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
