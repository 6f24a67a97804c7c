"""Router logits: the output of each router's linear layer, before the rule that chooses experts."""

from __future__ import annotations

import itertools
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

    calls = [[rows.shape[0] for rows in kept] for kept in kept_by_layer]
    for layer, sizes in zip(moe.layers, calls, strict=True):
        if not sizes or any(size % batch for size in sizes):
            raise HarnessError(f"{who} {layer.index} was not called with whole rows of a batch of {batch}")
    for layer, sizes in zip(moe.layers, calls, strict=True):
        if sizes != calls[0]:
            raise HarnessError(
                f"layer {layer.index} routed {sum(sizes) // batch} positions per row, layer {moe.layers[0].index} "
                f"{sum(calls[0]) // batch}, in {len(sizes)} and {len(calls[0])} calls: capture is not possible for "
                "this model"
            )
    # One copy of everything, call by call: on a GPU a copy per layer costs more than what it copies.
    everything = torch.cat([rows for call in zip(*kept_by_layer, strict=True) for rows in call])
    for kept in kept_by_layer:
        kept.clear()
    parts, at, n_layers, width = [], 0, len(calls), everything.shape[-1]
    for size, same in itertools.groupby(calls[0]):
        n = len(list(same))
        rows = everything[at : at + n * n_layers * size].view(n, n_layers, batch, size // batch, width)
        parts.append(rows.permute(1, 2, 0, 3, 4).flatten(2, 3))
        at += n * n_layers * size
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
