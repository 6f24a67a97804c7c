"""Keeping experts from being routed to, or forcing them into the top-k: a mask on the router's scores.

The router's own linear layer gives silenced experts the smallest score and activated ones slightly more than the
largest, the biases that correct scores keep silenced ones out, the choice of the highest scores takes activated ones
whatever groups or biases say, and the family's own rule (softmax, sigmoid, groups) does the rest.
Whether it worked is not assumed: a hook on the experts watches what was really chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from harness.base.errors import BadInputError, VariantImpossibleError
from harness.models.moe import SHARED

if TYPE_CHECKING:
    from torch import nn

    from harness.models.moe import MoELayer, MoEModel

ByLayer = Mapping[int, Sequence[int]]
"""Expert numbers by true layer index."""
_NONE: ByLayer = MappingProxyType({})
# How far an activated expert's score is above the largest: enough for bfloat16, which has 8 bits.
_ABOVE, _AT_LEAST = 2**-6, 0.01


class _MaskedRouter(TorchFunctionMode):
    """Lowers some outputs of one linear layer to the smallest number, raises others, and takes a choice accordingly."""

    def __init__(self, weight: torch.Tensor, silenced: torch.Tensor, activated: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.silenced = silenced
        self.activated = activated

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Some routers give whole groups of experts a score of zero in between, which may be the highest.
        if func in (torch.topk, torch.Tensor.topk) and args[0].shape[-1] == len(self.weight):
            args = (args[0].index_fill(-1, self.silenced, -torch.inf), *args[1:])
        result = func(*args, **(kwargs or {}))
        # By shape: some routers cast their weight to float32 first, and a router's forward has one such product.
        if func is functional.linear and len(args) > 1 and args[1].shape == self.weight.shape:
            result = result.index_fill(-1, self.silenced, torch.finfo(result.dtype).min)
            if len(self.activated):
                largest = result.amax(-1, keepdim=True)
                above = largest + (largest.abs() * _ABOVE).clamp(min=_AT_LEAST)
                result[..., self.activated] = above
        return result


class _ForcedChoice(TorchFunctionMode):
    """Takes some experts into any choice of the highest of one score per expert."""

    def __init__(self, n_experts: int, activated: torch.Tensor) -> None:
        super().__init__()
        self.n_experts = n_experts
        self.activated = activated

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in (torch.topk, torch.Tensor.topk) or args[0].shape[-1] != self.n_experts:
            return func(*args, **kwargs)
        scores, *rest = args
        chosen = func(scores.index_fill(-1, self.activated, torch.inf), *rest, **kwargs).indices
        # Some routers weigh the experts by the values that come with the choice.
        return torch.return_types.topk((scores.gather(-1, chosen), chosen))


def why_not_steerable(moe: MoEModel, silenced: ByLayer, activated: ByLayer = _NONE) -> str | None:
    """Return why these experts cannot all be kept from being routed to, or be routed to by every token; or None."""
    for index in sorted({*silenced, *activated}):
        layer, lost, forced = moe.layer(index), {*silenced.get(index, ())}, {*activated.get(index, ())}
        if layer.router is None:
            return f"layer {index} has no router with one row per expert"
        if lost & forced:
            return f"layer {index} would both silence and activate expert {min(lost & forced)}"
        left, k = layer.n_experts - len(lost), moe.experts_per_token
        if left < k:
            return f"layer {index} would keep {left} experts, fewer than the {k} a token needs"
        if len(forced) > k:
            return f"layer {index} would activate {len(forced)} experts, more than the {k} a token gets"
    return None


@contextmanager
def steered(moe: MoEModel, silenced: ByLayer, activated: ByLayer = _NONE) -> Iterator[None]:
    """Keep some experts from being routed to inside the block, and put others into the top-k of every token.

    Raises:
        BadInputError: the model cannot be steered so.
        VariantImpossibleError: a silenced expert was chosen all the same, or an activated one was not.
    """
    reason = why_not_steerable(moe, silenced, activated)
    if reason:
        raise BadInputError(f"steer: {reason}")
    with ExitStack() as stack:
        for index in sorted({*silenced, *activated}):
            layer = moe.layer(index)
            assert layer.router is not None  # why_not_steerable
            device = layer.weight(layer.weights[0]).device
            lost, forced = (
                torch.tensor(sorted(experts.get(index, ())), dtype=torch.long, device=device)
                for experts in (silenced, activated)
            )
            router = _MaskedRouter(layer.router.get_parameter("weight"), lost, forced)
            stack.enter_context(_within(layer.router, router))
            if len(forced):
                # Some blocks choose by themselves, from what their router returns.
                block = moe.model.get_submodule(layer.name.rpartition(".")[0])
                stack.enter_context(_within(block, _ForcedChoice(layer.n_experts, forced)))
            stack.enter_context(_masked_biases(moe.model, layer, lost))
            hook = layer.experts.register_forward_pre_hook(_watch(layer, lost, forced), with_kwargs=True)
            stack.callback(hook.remove)
        yield


@contextmanager
def _within(module: nn.Module, mode: TorchFunctionMode) -> Iterator[None]:
    """Let a module's forward pass run within a mode, inside the block."""
    forward = module.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        with mode:
            return forward(*args, **kwargs)

    module.forward = changed
    try:
        yield
    finally:
        del module.forward


@contextmanager
def _masked_biases(model: nn.Module, layer: MoELayer, masked: torch.Tensor) -> Iterator[None]:
    """Lower the biases by which a router corrects its scores: they would choose an expert whatever its score is.

    They are found by name and by having one number per expert, beside the experts or inside the router.
    """
    block = model.get_submodule(layer.name.rpartition(".")[0])
    biases = [
        value
        for name, value in [*block.named_parameters(), *block.named_buffers()]
        if "bias" in name.rpartition(".")[2]
        and not SHARED.search(name)
        and value.shape in ((layer.n_experts,), (1, layer.n_experts))
        and value.is_floating_point()
        and not any(value is own for own in layer.experts.parameters())
    ]
    before = [value.clone() for value in biases]
    try:
        with torch.no_grad():
            for value in biases:
                value[..., masked] = -torch.inf
        yield
    finally:
        with torch.no_grad():
            for value, own in zip(biases, before, strict=True):
                value.copy_(own)


def _watch(layer: MoELayer, silenced: torch.Tensor, activated: torch.Tensor) -> Any:
    def check(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        chosen = args[1] if len(args) > 1 else kwargs["top_k_index"]
        if bool(torch.isin(chosen, silenced).any()):
            raise VariantImpossibleError(
                f"steer: layer {layer.index} chose an expert that was masked; this model's router cannot be steered"
            )
        if not bool((chosen[..., None] == activated).any(dim=-2).all()):
            raise VariantImpossibleError(
                f"steer: layer {layer.index} did not choose an expert that was activated; this model's router cannot "
                "be steered"
            )

    return check
