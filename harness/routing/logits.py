"""Router logits: what each router's linear layer gives, before the rule that chooses experts."""

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
    """Collects what each router gives, [tokens, experts], in the order of the forward passes.

    Args:
        moe: the model to listen to.

    Raises:
        BadInputError: a layer has no router to listen to.
    """

    def __init__(self, moe: MoEModel) -> None:
        missing = [layer.index for layer in moe.layers if layer.router is None]
        if missing:
            raise BadInputError(
                f"layer {missing[0]} has no router with one row an expert: no logits to record"
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
            # the logits are the floating-point tensor with one column an expert.
            found = [output] if isinstance(output, torch.Tensor) else list(output)
            wide = [x for x in found if x.is_floating_point() and x.shape[-1] == n_experts]
            if not wide:
                raise BadInputError(f"router of layer {self.moe.layers[place].index} hands out no logits")
            self._logits[place].append(wide[0].reshape(-1, n_experts))

        return keep

    def take(self, batch: int) -> torch.Tensor:
        """Return everything recorded, [MoE layers, batch, tokens, experts], and start anew.

        Raises:
            HarnessError: a router was not called, or not with whole rows of the batch.
        """
        import torch

        layers = []
        for layer, kept in zip(self.moe.layers, self._logits, strict=True):
            if not kept or any(len(rows) % batch for rows in kept):
                raise HarnessError(
                    f"the router of layer {layer.index} was not called with whole rows of a batch of {batch}"
                )
            layers.append(torch.cat([rows.view(batch, -1, rows.shape[-1]) for rows in kept], dim=1))
            kept.clear()
        return torch.stack(layers)
