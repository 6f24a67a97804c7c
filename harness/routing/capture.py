"""Routing capture: which experts served each token, seen where the experts are called.

A forward pre-hook on each fused experts module receives the experts that the router chose and their gate weights,
whatever the router's rule (correction bias, group limits, sparsemixer), so nothing is recomputed. The hook only keeps
them, [rows, k]; which rows are prompt, answer or padding is known once the batch is finished, and counting happens
then, in one pass per layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.base.errors import HarnessError
from harness.routing.counts import DECISION_WINDOW, STORED_PHASES, RoutingCounts
from harness.routing.logits import RouterLogits, stacked
from harness.routing.tokens import RoutedTokens, answer_at

if TYPE_CHECKING:
    import torch
    from torch import nn

    from harness.models.moe import MoELayer, MoEModel


# Routed experts whose places among the counts are computed together.
_INDICES = 2**23


class Captured(NamedTuple):
    """The routing of a batch of `B` rows; columns are positions: the padded prompt, then one per decoding step."""

    experts: torch.Tensor  # [L, B, T, k]
    weights: torch.Tensor  # [L, B, T, k]
    logits: torch.Tensor | None  # [L, B, T, E]


class RoutingCapture:
    """Collects the routing of one batch after another.

    Args:
        moe: the model to listen to.
        logits: also keep the router's logits, which takes layers x experts numbers per token.
    """

    def __init__(self, moe: MoEModel, logits: bool = False) -> None:
        self.moe = moe
        self._experts: list[list[torch.Tensor]] = [[] for _ in moe.layers]
        self._weights: list[list[torch.Tensor]] = [[] for _ in moe.layers]
        self._logits = RouterLogits(moe) if logits else None

    @contextmanager
    def installed(self) -> Iterator[RoutingCapture]:
        """Listen to the experts modules inside the block."""
        with ExitStack() as stack:
            for i, layer in enumerate(self.moe.layers):
                handle = layer.experts.register_forward_pre_hook(self._hook(i, layer), with_kwargs=True)
                stack.callback(handle.remove)
            if self._logits is not None:
                stack.enter_context(self._logits.recorded())
            yield self

    def _hook(self, place: int, layer: MoELayer) -> Any:
        import torch

        small = torch.uint8 if layer.n_experts <= 256 else torch.int16

        def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            chosen, weights = (*args[1:3], kwargs.get("top_k_index"), kwargs.get("top_k_weights"))[:2]
            self._experts[place].append(chosen.to(small))
            self._weights[place].append(weights)

        return keep

    def take(self, batch: int) -> Captured:
        """Return the routing since the last call, and start anew.

        Raises:
            HarnessError: a layer was not called, or not with whole rows of the batch.
        """
        experts = stacked(self.moe, self._experts, batch, "layer")
        weights = stacked(self.moe, self._weights, batch, "layer")
        logits = None if self._logits is None else self._logits.take(batch)
        return Captured(experts, weights, logits)


def phase_masks(
    prompt_mask: torch.Tensor, generated: torch.Tensor, starts: torch.Tensor | None = None
) -> torch.Tensor:
    """Say which routed positions belong to which phase.

    Args:
        prompt_mask: attention mask of the left-padded prompts, [B, P].
        generated: tokens of each answer, its end token included, [B].
        starts: how many of them come before the answer's first, [B]; all of them where it never began. By default none.

    Returns:
        bool [stored phases, B, columns]; the columns are P + the longest answer - 1.
    """
    import torch

    batch, width = prompt_mask.shape
    columns = width + int(generated.max()) - 1
    step = torch.arange(columns, device=prompt_mask.device).expand(batch, columns)
    prompt = torch.zeros(batch, columns, dtype=torch.bool, device=prompt_mask.device)
    prompt[:, :width] = prompt_mask.bool()
    # Column width + i holds answer token i; the last token of an answer was sampled, never routed.
    generation = (step >= width) & (step - width < generated[:, None] - 1)
    first = width + (torch.zeros_like(generated) if starts is None else starts)[:, None]
    window = (step >= first - DECISION_WINDOW) & (step < first + DECISION_WINDOW)
    has_begun = first < width + generated[:, None]
    phases = {
        "prompt": prompt,
        "generation": generation,
        "decision": (prompt | generation) & window & has_begun,
        "reasoning": generation & (step < first),
    }
    return torch.stack([phases[phase] for phase in STORED_PHASES])


def count(captured: Captured, masks: torch.Tensor, moe: MoEModel, prompts: Sequence[str]) -> RoutingCounts:
    """Count a batch.

    Args:
        captured: from `RoutingCapture.take`.
        masks: which positions belong to which phase, bool [phases, B, T].
        moe: the model they come from.
        prompts: the prompts' ids, B of them.

    Raises:
        HarnessError: not one column was captured per position, or a token that counts has an expert out of
            range, the same expert twice, or a gate weight that is not a number.
    """
    import torch

    _check_columns(captured, masks)
    _check(captured, masks.any(dim=0), moe, prompts)
    layers, batch, columns, k = captured.experts.shape
    phases, experts, device = masks.shape[0], moe.n_experts, captured.experts.device
    # Phases overlap. A position is counted once, under the set of phases that it is in, and sets are added up after.
    bits = 2 ** torch.arange(phases, device=device)
    sets = 2**phases
    inside = (masks * bits[:, None, None]).sum(dim=0)
    row = torch.arange(batch, device=device)[:, None] * sets + inside
    # Routed tokens and gate weights, both exact: a float64 holds whole numbers up to 2 ** 53.
    sums = torch.zeros(2, layers, batch * sets * experts, dtype=torch.float64, device=device)
    # As many layers at a time as keep the indices small beside the model.
    at_once = max(1, _INDICES // (batch * columns * k))
    for at in range(0, layers, at_once):
        part = slice(at, at + at_once)
        place = (row.unsqueeze(-1) * experts + captured.experts[part].long()).flatten(1)
        sums[0, part].scatter_add_(1, place, sums.new_ones(1, 1).expand(place.shape))
        sums[1, part].scatter_add_(1, place, captured.weights[part].flatten(1).double())
    # Without the set of no phase: weights of padding may not be numbers, and would spread in the product.
    each = torch.arange(1, sets, device=device)[:, None] >> torch.arange(phases, device=device) & 1
    sums = sums.view(2, layers, batch, sets, experts)[:, :, :, 1:]
    by_phase = torch.einsum("xlbse,sp->xbple", sums, each.double()).contiguous()
    result = RoutingCounts(
        ids=tuple(prompts),
        layers=tuple(moe.layer_indices),
        experts_per_token=k,
        counts=by_phase[0].to(torch.int32).cpu().numpy(),
        tokens=masks.sum(dim=-1).T.to(torch.int32).cpu().numpy().astype(np.int32),
        mass=by_phase[1].float().cpu().numpy(),
    )
    result.check("capture")
    return result


def routed_tokens(
    captured: Captured, masks: torch.Tensor, token_ids: torch.Tensor, prompts: Sequence[str]
) -> RoutedTokens:
    """Keep a batch's routing token by token.

    Args:
        captured: from `RoutingCapture.take`.
        masks: which positions belong to which phase, bool [phases, B, T].
        token_ids: the token at each position, [B, T].
        prompts: the prompts' ids, B of them.

    Raises:
        HarnessError: not one column was captured per position.
    """
    import torch

    _check_columns(captured, masks)
    prompt, generation, decision, reasoning = masks
    routed = prompt | generation
    lengths = routed.sum(dim=1).cpu().numpy()

    def rows(values: torch.Tensor) -> torch.Tensor:  # [L, B, T, X] to [routed tokens, L, X]
        return values.permute(1, 2, 0, 3)[routed].cpu()

    experts = rows(captured.experts).numpy()
    return RoutedTokens(
        ids=tuple(prompts),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        prompt_tokens=prompt.sum(dim=1).to(torch.int32).cpu().numpy(),
        token_ids=token_ids[routed].to(torch.int32).cpu().numpy(),
        experts=experts if experts.dtype == np.uint8 else experts.astype(np.uint16),
        weights=rows(captured.weights).to(torch.float16).numpy(),
        logits=None if captured.logits is None else rows(captured.logits).float().numpy(),
        answer_at=answer_at(reasoning.sum(dim=1).cpu().numpy(), decision.sum(dim=1).cpu().numpy()),
    )


def _check_columns(captured: Captured, masks: torch.Tensor) -> None:
    """Refuse anything but one column per position: rows of other positions would be counted in their place."""
    expected = masks.shape[2]
    for what, values in zip(Captured._fields, captured, strict=True):
        if values is not None and values.shape[2] != expected:
            raise HarnessError(
                f"{values.shape[2]} columns of {what} were captured per layer, expected {expected} (prompt + longest "
                "answer - 1): capture cannot be trusted for this model"
            )


def _check(captured: Captured, routed: torch.Tensor, moe: MoEModel, prompts: Sequence[str]) -> None:
    """Refuse impossible routing and gate weights that are not numbers, of tokens that count, [B, T].

    Silent zeros are worse than no number. The device is asked once.
    """
    chosen = captured.experts
    impossible = ((chosen < 0) | (chosen >= moe.n_experts)).any(dim=-1)
    for apart in range(1, chosen.shape[-1]):
        impossible |= (chosen[..., apart:] == chosen[..., :-apart]).any(dim=-1)
    impossible &= routed
    broken = (~captured.weights.isfinite()).any(dim=-1) & routed
    wrong = impossible | broken
    if not bool(wrong.any()):
        return
    layer = int(wrong.flatten(1).any(dim=1).int().argmax())
    index = moe.layers[layer].index
    if bool(impossible[layer].any()):
        raise HarnessError(
            f"layer {index} routed a token to an expert twice or out of 0 to {moe.n_experts - 1}: "
            "capture cannot be trusted for this model"
        )
    sample = int(broken[layer].any(dim=1).int().argmax())
    raise HarnessError(f"layer {index}: the router's output for prompt '{prompts[sample]}' is not a number")
