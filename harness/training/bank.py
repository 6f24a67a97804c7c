"""The expert bank: train a few experts of fused tensors without a gradient for the rest.

The selected experts of a layer live in a small trainable copy, [B, ...] beside the frozen [E, ...]. During a
forward pass the tokens are sorted so that those of selected experts come first, and take their products from the
bank (harness/training/grouped.py). The bank gets its gradients, and the frozen tensor never gets one: no full-size
gradient, no optimizer state, no weight decay on a "frozen" row. The values replace the expert's rather than being
added to them, so that merging and unmerging are copies, exact both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor

from harness.base.errors import BadInputError
from harness.base.files import write_whole
from harness.checkpoints.delta import ExpertDelta
from harness.models.moe import by_layer
from harness.training.grouped import into_order, linear, out_of_order, sort_rows, spread
from harness.training.lora import LowRank

if TYPE_CHECKING:
    from harness.models.moe import Expert, MoELayer, MoEModel
    from harness.training.lora import Lora

_IMPLEMENTATION = "harness_expert_bank"
# Kept in a module's __dict__ while a bank is installed: the layer's bank or None, and what runs without it.
_BANK = "_harness_expert_bank"
_ELSE = "_harness_experts_implementation"


class LayerBank(nn.Module):
    """The trainable experts of one MoE layer.

    Args:
        layer: the layer they belong to.
        experts: their numbers, sorted, B of them.
        dtype: of the trainable tensors; float32 keeps small updates that bfloat16 would round away.
        lora: train factors of the matrices; biases then stay as they are. By default all values are trained.
    """

    group: torch.Tensor
    numbers: torch.Tensor

    def __init__(
        self,
        layer: MoELayer,
        experts: Sequence[int],
        dtype: torch.dtype = torch.float32,
        lora: Lora | None = None,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.experts = list(experts)
        device = layer.weight(layer.weights[0]).device
        self.register_buffer("numbers", torch.tensor(self.experts, device=device), persistent=False)
        # Banked experts come first among the groups that rows are sorted by, then all experts by their numbers.
        group = len(self.experts) + torch.arange(layer.n_experts, device=device)
        group[self.numbers] = torch.arange(len(self.experts), device=device)
        self.register_buffer("group", group, persistent=False)
        # Trained in full, or by factors.
        self.weights = nn.ParameterDict()
        self.factors = nn.ModuleDict()
        for name in layer.weights:
            frozen = self._frozen(name)
            if lora is None:
                self.weights[name] = nn.Parameter(frozen.to(dtype))
            elif frozen.dim() == 3:
                self.factors[name] = LowRank(
                    frozen.shape, lora, transposed=layer.layout.transposed, dtype=dtype, device=device
                )

    def values(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return the experts' current values, [B, ...], in a dtype and with their gradient."""
        return {name: self._value(name).to(dtype) for name in self.layer.weights}

    def gradient_sizes(self) -> torch.Tensor:
        """Return the sum of the absolute gradients of each expert, [B], on the bank's device."""
        none = torch.zeros(len(self.experts), device=self.numbers.device)
        gradients = (parameter.grad for parameter in self.parameters() if parameter.grad is not None)
        return sum((gradient.abs().flatten(1).sum(dim=1) for gradient in gradients), start=none)

    def _value(self, name: str) -> torch.Tensor:
        if name in self.weights:
            return cast("torch.Tensor", self.weights[name])
        frozen = self._frozen(name)
        return cast("torch.Tensor", self.factors[name](frozen)) if name in self.factors else frozen

    def _frozen(self, name: str) -> torch.Tensor:
        """Return the model's own values of these experts; all processes of a sharded model ask together."""
        weight = self.layer.weight(name).detach()
        # Whole inside a forward pass, a DTensor outside.
        whole: torch.Tensor = weight.full_tensor() if isinstance(weight, DTensor) else weight
        return whole.index_select(0, self.numbers)


class ExpertBank:
    """The trainable experts of a model.

    Args:
        moe: the model; its own weights stay untouched while the bank trains.
        experts: which experts to train.
        dtype: of the trainable tensors.
        lora: train low-rank factors of the experts' matrices instead of all their values.

    Raises:
        BadInputError: no experts, or some that do not exist.
    """

    def __init__(
        self,
        moe: MoEModel,
        experts: Sequence[Expert],
        dtype: torch.dtype = torch.float32,
        lora: Lora | None = None,
    ) -> None:
        if not experts:
            raise BadInputError("nothing to train: no experts are selected")
        moe.check(experts)
        self.moe = moe
        self.layers = {
            index: LayerBank(moe.layer(index), numbers, dtype, lora)
            for index, numbers in by_layer(experts).items()
        }

    def parameters(self) -> list[nn.Parameter]:
        """Return the trainable tensors."""
        return [value for layer in self.layers.values() for value in layer.parameters()]

    def save(self, path: Path) -> None:
        """Write the trainable tensors to a file, which `load` takes back."""
        tensors = {name: value.cpu().contiguous() for name, value in self.state().items()}
        write_whole(path, lambda temporary: save_file(tensors, temporary))

    def load(self, path: Path) -> None:
        """Take the values that a bank of the same experts, settings and model has saved."""
        self.load_state(load_file(path))

    def state(self) -> dict[str, torch.Tensor]:
        """Return the trainable tensors by name."""
        return {
            f"layers.{index}.{name}": value.detach()
            for index, layer in self.layers.items()
            for name, value in layer.named_parameters()
        }

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the values of a bank of the same experts, settings and model."""
        own = self.state()
        if own.keys() != state.keys():
            raise BadInputError("the state is that of a bank with other experts or settings")
        for name, value in own.items():
            value.copy_(state[name])

    @property
    def size(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Route the selected experts' tokens through the bank inside the block.

        Raises:
            BadInputError: another bank is installed already.
        """
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

        modules = [layer.experts for layer in self.moe.layers]
        if any(_ELSE in module.__dict__ for module in modules):
            raise BadInputError("another expert bank is installed in this model: leave its block first")
        ALL_EXPERTS_FUNCTIONS.register(_IMPLEMENTATION, expert_bank_forward)
        try:
            with experts_implementation(self.moe, _IMPLEMENTATION) as before:
                for layer in self.moe.layers:
                    # Around nn.Module's own __setattr__, which would make the bank a part of the model.
                    layer.experts.__dict__[_BANK] = self.layers.get(layer.index)
                    layer.experts.__dict__[_ELSE] = before[id(layer.experts.config)]
                yield
        finally:
            for module in modules:
                for name in (_BANK, _ELSE):
                    module.__dict__.pop(name, None)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """Let an installed bank's experts run with the model's own values inside the block.

        The frozen model is then at hand as a reference, for one more forward pass and no memory.

        Raises:
            BadInputError: the bank is not installed.
        """
        modules = {index: self.moe.layer(index).experts.__dict__ for index in self.layers}
        if any(modules[index].get(_BANK) is not layer for index, layer in self.layers.items()):
            raise BadInputError("the expert bank is not installed, or switched off already")
        try:
            for attributes in modules.values():
                attributes[_BANK] = None
            yield
        finally:
            for index, layer in self.layers.items():
                modules[index][_BANK] = layer


def delta_of(bank: ExpertBank, base: str, dtype: torch.dtype) -> ExpertDelta:
    """Read a trained bank's values as a delta."""
    experts = {index: layer.experts for index, layer in bank.layers.items()}
    with torch.no_grad():
        # Copies: the bank's own values may change yet.
        tensors = {
            index: {name: value.clone() for name, value in layer.values(dtype).items()}
            for index, layer in bank.layers.items()
        }
    return ExpertDelta(base, experts, tensors)


@contextmanager
def experts_implementation(moe: MoEModel, name: str) -> Iterator[dict[int, Any]]:
    """Let a model's experts run by another of transformers' experts implementations inside the block.

    Yields the one that each configuration had before, by the configuration's id (multimodal models have several).
    """
    configs = {id(layer.experts.config): layer.experts.config for layer in moe.layers}
    before = {key: config._experts_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._experts_implementation = name
        yield before
    finally:
        for key, config in configs.items():
            config._experts_implementation = before[key]


def expert_bank_forward(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """Experts forward with some experts taken from the bank, for transformers' experts interface.

    Args:
        self: the decorated experts module.
        hidden_states: [N, H].
        top_k_index: chosen experts, [N, k].
        top_k_weights: their gate weights, [N, k].

    Returns:
        [N, H], in the dtype of the hidden states.
    """
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    bank: LayerBank | None = self.__dict__[_BANK]
    if bank is None:
        # What the model would use without the bank; `use_experts_implementation` wraps the family's own forward.
        own = type(self).forward.__wrapped__
        implementation: Any = ALL_EXPERTS_FUNCTIONS.get_interface(self.__dict__[_ELSE], own)
        return cast("torch.Tensor", implementation(self, hidden_states, top_k_index, top_k_weights))
    k = top_k_index.shape[1]
    order = sort_rows(top_k_index, bank.group, len(bank.experts))
    values = bank.values(self.down_proj.dtype)
    up = "gate_up_proj" if self.has_gate else "up_proj"

    def project(rows: torch.Tensor, name: str) -> torch.Tensor:
        out = linear(rows, getattr(self, name), values[name], order, transposed=self.is_transposed)
        if not self.has_bias:
            return out
        biases = torch.cat([values[f"{name}_bias"], getattr(self, f"{name}_bias")])
        return out + biases.index_select(0, order.group)

    hidden = project(spread(hidden_states, order, k), up)
    hidden = self._apply_gate(hidden) if self.has_gate else self.act_fn(hidden)
    out = project(hidden, "down_proj")
    if getattr(self, "has_post_expert_norm", False):
        out = self.post_expert_norm(out)
    weighted = out * into_order(top_k_weights.reshape(-1), order).unsqueeze(-1)
    summed = out_of_order(weighted, order).view(*top_k_index.shape, -1).sum(dim=1)
    return summed.to(hidden_states.dtype)
