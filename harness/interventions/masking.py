"""Keeping experts from being routed to: a mask on the router's scores.

The router's own linear layer gives them the smallest score, the biases that correct scores minus infinity, and the
family's own rule (softmax, sigmoid, groups) does the rest.
Whether it worked is not assumed: a hook on the experts watches what was really chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from harness.base.errors import BadInputError, VariantImpossibleError
from harness.models.moe import SHARED

if TYPE_CHECKING:
    from torch import nn

    from harness.experts.select import ExpertSelection
    from harness.models.moe import MoELayer, MoEModel


class _MaskedRouter(TorchFunctionMode):
    """Lowers some outputs of one linear layer to the smallest number, and keeps them out of a choice of the highest."""

    def __init__(self, weight: torch.Tensor, masked: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.masked = masked

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # Some routers give whole groups of experts a score of zero in between, which may be the highest.
        if func in (torch.topk, torch.Tensor.topk) and args[0].shape[-1] == len(self.weight):
            args = (args[0].index_fill(-1, self.masked, -torch.inf), *args[1:])
        result = func(*args, **(kwargs or {}))
        # By shape: some routers cast their weight to float32 first, and a router's forward has one such product.
        if func is functional.linear and len(args) > 1 and args[1].shape == self.weight.shape:
            return result.index_fill(-1, self.masked, torch.finfo(result.dtype).min)
        return result


def why_not_steerable(moe: MoEModel, selection: ExpertSelection) -> str | None:
    """Return why these experts cannot all be kept from being routed to, or None."""
    for index, experts in selection.by_layer().items():
        layer = moe.layer(index)
        if layer.router is None:
            return f"layer {index} has no router with one row per expert"
        left = layer.n_experts - len(experts)
        if left < moe.experts_per_token:
            return f"layer {index} would keep {left} experts, fewer than the {moe.experts_per_token} a token needs"
    return None


@contextmanager
def steered(moe: MoEModel, selection: ExpertSelection) -> Iterator[None]:
    """Keep the selected experts from being routed to inside the block.

    Raises:
        BadInputError: the model cannot be steered so.
        VariantImpossibleError: a masked expert was chosen all the same.
    """
    reason = why_not_steerable(moe, selection)
    if reason:
        raise BadInputError(f"steer: {reason}")
    with ExitStack() as stack:
        for index, experts in selection.by_layer().items():
            layer = moe.layer(index)
            assert layer.router is not None  # why_not_steerable
            masked = torch.tensor(experts, device=layer.weight(layer.weights[0]).device)
            stack.enter_context(_masked_router(layer.router, masked))
            stack.enter_context(_masked_biases(moe.model, layer, masked))
            hook = layer.experts.register_forward_pre_hook(_watch(layer, masked), with_kwargs=True)
            stack.callback(hook.remove)
        yield


@contextmanager
def _masked_router(router: nn.Module, masked: torch.Tensor) -> Iterator[None]:
    forward = router.forward

    def masked_forward(*args: Any, **kwargs: Any) -> Any:
        with _MaskedRouter(router.get_parameter("weight"), masked):
            return forward(*args, **kwargs)

    router.forward = masked_forward
    try:
        yield
    finally:
        del router.forward


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


def _watch(layer: MoELayer, masked: torch.Tensor) -> Any:
    def check(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        chosen = args[1] if len(args) > 1 else kwargs["top_k_index"]
        if bool(torch.isin(chosen, masked).any()):
            raise VariantImpossibleError(
                f"steer: layer {layer.index} chose an expert that was masked; this model's router cannot be steered"
            )

    return check
