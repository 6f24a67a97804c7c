"""Router logits: the output of each router's linear layer, before the rule that chooses experts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, HarnessError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.models.moe import MoEModel


class RouterLogits:
    """Collects the logits of each router, [tokens, experts], in the order of the forward passes.

    Args:
        moe: the model to listen to.

    Raises:
        BadInputError: a layer has no router to listen to.
    """

    def __init__(self, moe: MoEModel) -> None:
        missing = [layer.index for layer in moe.layers if layer.router is None]
        if missing:
            raise BadInputError(
                f"layer {missing[0]} has no router with one row per expert: no logits to record"
            )
        self.moe = moe
        self._logits: list[list[torch.Tensor]] = [[] for _ in moe.layers]

    @contextmanager
    def recorded(self) -> Iterator[RouterLogits]:
        """Record inside the block."""
        handles = [
            layer.router.register_forward_hook(self._hook(place, layer.n_experts))
            for place, layer in enumerate(self.moe.layers)
            if layer.router is not None
        ]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, place: int, n_experts: int) -> Any:
        import torch

        def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # Routers return the logits among weights and indices, in an order that differs between families:
            # the logits are the floating-point tensor with one column per expert.
            outputs = [output] if isinstance(output, torch.Tensor) else list(output)
            wide = [x for x in outputs if x.is_floating_point() and x.shape[-1] == n_experts]
            if not wide:
                raise BadInputError(f"router of layer {self.moe.layers[place].index} returns no logits")
            self._logits[place].append(wide[0].reshape(-1, n_experts))

        return keep

    def take(self, batch: int) -> torch.Tensor:
        """Return everything recorded, [MoE layers, batch, tokens, experts], and start anew.

        Raises:
            HarnessError: a router was not called, or not with whole rows of the batch.
        """
        return stacked(self.moe, self._logits, batch, "the router of layer")


def stacked(moe: MoEModel, kept_by_layer: list[list[torch.Tensor]], batch: int, who: str) -> torch.Tensor:
    """Join what was kept of each layer's calls to [L, B, T, X], and forget it.

    Args:
        moe: the model.
        kept_by_layer: for each MoE layer, one [B T, X] per call.
        batch: B.
        who: what was called, for the message.

    Raises:
        HarnessError: it was not called, or not with whole rows of the batch, or the layers differ in T.
    """
    import torch

    layers = []
    for layer, kept in zip(moe.layers, kept_by_layer, strict=True):
        if not kept or any(rows.shape[0] % batch for rows in kept):
            raise HarnessError(f"{who} {layer.index} was not called with whole rows of a batch of {batch}")
        layers.append(torch.cat([rows.view(batch, -1, rows.shape[-1]) for rows in kept], dim=1))
        kept.clear()
    for layer, rows in zip(moe.layers, layers, strict=True):
        if rows.shape != layers[0].shape:
            raise HarnessError(
                f"layer {layer.index} routed {rows.shape[1]} positions per row, layer {moe.layers[0].index} "
                f"{layers[0].shape[1]}: capture is not possible for this model"
            )
    return torch.stack(layers)
