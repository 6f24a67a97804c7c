"""The expert bank: train a few experts of fused tensors without a gradient for the rest.

The selected experts of a layer live in a small trainable copy, [B, ...] beside the frozen [E, ...]. During a
forward pass the tokens are sorted so that those of selected experts come last; one grouped product runs on the
frozen tensor and one on the bank. Plain autograd then gives the bank its gradients, and the frozen tensor never
gets one: no full-size gradient, no optimizer state, no weight decay on a "frozen" row. The values replace the
expert's rather than being added to them, so that merging and unmerging are copies, exact both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.errors import BadInputError

if TYPE_CHECKING:
    from harness.models.moe import Expert, MoELayer, MoEModel

_IMPLEMENTATION = "harness_expert_bank"
# Kept in a module's __dict__ while a bank is installed: the layer's bank or None, and what runs without it.
_BANK = "_harness_expert_bank"
_ELSE = "_harness_experts_implementation"


class LayerBank(nn.Module):
    """The trainable experts of one MoE layer.

    Args:
        layer: the layer they belong to.
        experts: their numbers, sorted, B of them.
        dtype: of the trainable copy; float32 keeps small updates that bfloat16 would round away.
    """

    group: torch.Tensor

    def __init__(self, layer: MoELayer, experts: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.experts = list(experts)
        self.weights = nn.ParameterDict(
            {
                name: nn.Parameter(layer.weight(name).detach()[self.experts].to(dtype))
                for name in layer.weights
            }
        )
        # Where an expert's tokens go: frozen experts keep their number, selected ones come behind all of them.
        group = torch.arange(layer.n_experts, device=layer.weight(layer.weights[0]).device)
        group[self.experts] = layer.n_experts + torch.arange(len(self.experts), device=group.device)
        self.register_buffer("group", group, persistent=False)

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Return the experts' current values, [B, ...], in a dtype."""
        return {name: value.detach().to(dtype, copy=True) for name, value in self.weights.items()}


class ExpertBank:
    """The trainable experts of a model.

    Args:
        moe: the model; its own weights stay untouched while the bank trains.
        experts: which experts to train.
        dtype: of the trainable copies.

    Raises:
        BadInputError: no experts, or some that do not exist.
    """

    def __init__(self, moe: MoEModel, experts: Sequence[Expert], dtype: torch.dtype = torch.float32) -> None:
        if not experts:
            raise BadInputError("nothing to train: no experts are selected")
        moe.check(experts)
        by_layer: dict[int, list[int]] = {}
        for layer, expert in sorted(set(experts)):
            by_layer.setdefault(layer, []).append(expert)
        self.moe = moe
        self.layers = {
            index: LayerBank(moe.layer(index), numbers, dtype) for index, numbers in by_layer.items()
        }

    def parameters(self) -> list[nn.Parameter]:
        """Return the trainable tensors."""
        return [value for layer in self.layers.values() for value in layer.weights.values()]

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
    bank: LayerBank | None = self.__dict__[_BANK]
    if bank is None:
        other: torch.Tensor = _other_implementation(self)(self, hidden_states, top_k_index, top_k_weights)
        return other
    n_tokens, k = top_k_index.shape
    group = bank.group[top_k_index.reshape(-1)]
    order = torch.argsort(group, stable=True)
    n_frozen = self.num_experts
    per_group = torch.bincount(group, minlength=n_frozen + len(bank.experts))
    split = int(per_group[:n_frozen].sum())
    rows = hidden_states[order // k]
    dtype = self.down_proj.dtype
    parts = [
        _experts_mlp(self, rows[:split], {n: getattr(self, n) for n in bank.weights}, per_group[:n_frozen]),
        _experts_mlp(
            self, rows[split:], {n: w.to(dtype) for n, w in bank.weights.items()}, per_group[n_frozen:]
        ),
    ]
    weighted = torch.cat(parts) * top_k_weights.reshape(-1)[order].unsqueeze(-1)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return weighted[back].view(n_tokens, k, -1).sum(dim=1).to(hidden_states.dtype)


def _experts_mlp(
    module: Any, rows: torch.Tensor, weights: dict[str, torch.Tensor], per_expert: torch.Tensor
) -> torch.Tensor:
    """Run rows that are sorted by expert through fused experts, [S, H] to [S, H]."""
    from transformers.integrations.moe import _grouped_linear

    if not len(rows):
        return rows
    ends = torch.cumsum(per_expert, dim=0, dtype=torch.int32)
    up = "gate_up_proj" if module.has_gate else "up_proj"

    def bias(name: str) -> torch.Tensor | None:
        if not module.has_bias:
            return None
        return torch.repeat_interleave(weights[f"{name}_bias"], per_expert, dim=0, output_size=len(rows))

    hidden = _grouped_linear(rows, weights[up], ends, bias=bias(up), is_transposed=module.is_transposed)
    hidden = module._apply_gate(hidden) if module.has_gate else module.act_fn(hidden)
    out = _grouped_linear(
        hidden, weights["down_proj"], ends, bias=bias("down_proj"), is_transposed=module.is_transposed
    )
    return module.post_expert_norm(out) if getattr(module, "has_post_expert_norm", False) else out


def _other_implementation(module: Any) -> Any:
    """Return the experts forward that the model would use without the bank."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    # `use_experts_implementation` wraps the family's own forward with functools.wraps.
    return ALL_EXPERTS_FUNCTIONS.get_interface(module.__dict__[_ELSE], type(module).forward.__wrapped__)
