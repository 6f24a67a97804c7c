"""Routing capture: which experts served each token, seen where the experts are called.

A forward pre-hook on each fused experts module receives the experts that the router chose, whatever its rule
(correction bias, group limits, sparsemixer), so nothing is recomputed. The hook only keeps the ids, [rows, k];
which rows are prompt, answer or padding is known once the batch is finished, and counting happens then, in one
pass a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import HarnessError
from harness.routing.counts import DECISION_WINDOW, STORED_PHASES, RoutingCounts

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.models.moe import MoELayer, MoEModel


class RoutingCapture:
    """Collects the expert ids of one batch of `B` rows after another."""

    def __init__(self, moe: MoEModel) -> None:
        self.moe = moe
        self._ids: list[list[torch.Tensor]] = [[] for _ in moe.layers]

    @contextmanager
    def installed(self) -> Iterator[RoutingCapture]:
        """Listen to the experts modules inside the block."""
        handles = [
            layer.experts.register_forward_pre_hook(self._hook(i, layer), with_kwargs=True)
            for i, layer in enumerate(self.moe.layers)
        ]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, place: int, layer: MoELayer) -> Any:
        import torch

        small = torch.uint8 if layer.n_experts <= 256 else torch.int16

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            chosen = args[1] if len(args) > 1 else kwargs["top_k_index"]
            self._ids[place].append(chosen.to(small))

        return keep

    def take(self, batch: int) -> torch.Tensor:
        """Return the ids of what was routed since the last call, [L, B, T, k], and start anew.

        Columns are positions: first the prompt as it was padded, then one a decoding step.
        """
        import torch

        layers = []
        for layer, kept in zip(self.moe.layers, self._ids, strict=True):
            if not kept or any(ids.shape[0] % batch for ids in kept):
                raise HarnessError(
                    f"layer {layer.index} was not called with whole rows of a batch of {batch}"
                )
            layers.append(torch.cat([ids.view(batch, -1, ids.shape[-1]) for ids in kept], dim=1))
            kept.clear()
        if len({ids.shape for ids in layers}) > 1:
            raise HarnessError(
                "MoE layers saw different numbers of tokens: capture is not possible for this model"
            )
        return torch.stack(layers)


def phase_masks(prompt_mask: torch.Tensor, generated: torch.Tensor, columns: int) -> torch.Tensor:
    """Say which routed positions belong to which phase.

    Args:
        prompt_mask: attention mask of the left-padded prompts, [B, P].
        generated: tokens of each answer, its end token included, [B].
        columns: routed positions of the batch, P plus the decoding steps.

    Returns:
        bool [stored phases, B, columns].
    """
    import torch

    batch, width = prompt_mask.shape
    step = torch.arange(columns, device=prompt_mask.device).expand(batch, columns)
    prompt = torch.zeros(batch, columns, dtype=torch.bool, device=prompt_mask.device)
    prompt[:, :width] = prompt_mask.bool()
    # Column width + i holds answer token i; the last token of an answer was sampled, never routed.
    answer = (step >= width) & (step - width < generated[:, None] - 1)
    window = (step >= width - DECISION_WINDOW) & (step < width + DECISION_WINDOW)
    phases = {"prompt": prompt, "generation": answer, "decision": (prompt | answer) & window}
    return torch.stack([phases[phase] for phase in STORED_PHASES])


def count(ids: torch.Tensor, masks: torch.Tensor, moe: MoEModel, prompts: Sequence[str]) -> RoutingCounts:
    """Count a batch.

    Args:
        ids: expert ids, [L, B, T, k].
        masks: which positions belong to which phase, bool [phases, B, T].
        moe: the model they come from.
        prompts: the prompts' ids, B of them.

    Raises:
        HarnessError: a token that counts has an expert out of range or the same expert twice.
    """
    import torch

    layers, batch, _, k = ids.shape
    phases, experts = masks.shape[0], moe.n_experts
    counts = torch.zeros(batch, phases, layers, experts, dtype=torch.int32, device=ids.device)
    for layer in range(layers):
        chosen = ids[layer].long()
        _check_ids(chosen, masks.any(dim=0), moe.layers[layer])
        flat = chosen.reshape(batch, -1)
        for phase in range(phases):
            weight = masks[phase].unsqueeze(-1).expand(-1, -1, k).reshape(batch, -1).to(torch.int32)
            counts[:, phase, layer].scatter_add_(1, flat, weight)
    result = RoutingCounts(
        ids=tuple(prompts),
        layers=tuple(moe.layer_indices),
        experts_per_token=k,
        counts=counts.cpu().numpy(),
        tokens=masks.sum(dim=-1).T.to(torch.int32).cpu().numpy().astype(np.int32),
    )
    result.check("capture")
    return result


def _check_ids(chosen: torch.Tensor, routed: torch.Tensor, layer: MoELayer) -> None:
    """Refuse impossible routing, [B, T, k]: silent zeros are worse than no number."""
    ordered = chosen.sort(dim=-1).values
    out_of_range = (ordered[..., 0] < 0) | (ordered[..., -1] >= layer.n_experts)
    repeated = (ordered[..., 1:] == ordered[..., :-1]).any(dim=-1)
    if bool(((out_of_range | repeated) & routed).any()):
        raise HarnessError(
            f"layer {layer.index} routed a token to an expert twice or out of 0 to {layer.n_experts - 1}: "
            "capture cannot be trusted for this model"
        )
