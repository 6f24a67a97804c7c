"""Losses over a batch's answer tokens, in chunks, so that the vocabulary never dominates memory.

A batch's hidden states at the places that predict its answer tokens, [A, H], are kept; their logits, [A, V], never
exist all at once. The output head is frozen, so the gradient of a chunk's loss in its hidden states is taken as soon
as the loss is known, and the chunk's logits are freed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.base.errors import HarnessError

if TYPE_CHECKING:
    from torch import nn

    from harness.training.examples import Batch

# Tokens whose logits exist together, in float32.
CHUNK = 1024

Piece = Callable[[torch.Tensor, slice], torch.Tensor]
"""From the float32 logits of some answer tokens, [a, V], and their places to a figure."""


@dataclass(frozen=True)
class Answers:
    """A model's predictions of a batch's answer tokens.

    Attributes:
        hidden: the hidden states that predict them, [A, H].
        to_logits: from some hidden states, [a, H], to logits, [a, V], with the family's own scaling and capping.
    """

    hidden: torch.Tensor
    to_logits: Callable[[torch.Tensor], torch.Tensor]

    def loss(self, piece: Piece, weight: float = 1.0, tokens: int = 1) -> torch.Tensor:
        """Return weight / tokens times the sum of a loss over all answer tokens, a scalar with its gradient.

        Args:
            piece: the loss of some tokens, summed; each token's must depend on its own logits alone.
            weight: factor of the sum.
            tokens: its divisor.
        """
        if not len(self.hidden):
            # One of several processes may have no answer of its own; its backward pass is run all the same.
            return self.hidden.float().sum()
        total: torch.Tensor = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]
            self.hidden, self.to_logits, piece, weight, tokens
        )
        return total

    def values(self, piece: Piece) -> torch.Tensor:
        """Return a figure for each answer token, [A], without gradient."""
        parts = [self.hidden.new_zeros(0, dtype=torch.float32)]
        with torch.no_grad():
            parts += [piece(self.logits(part), part) for part in chunks(len(self.hidden))]
        return torch.cat(parts)

    def logits(self, part: slice) -> torch.Tensor:
        """Return the float32 logits of some answer tokens, [a, V], without gradient."""
        with torch.no_grad():
            return self.to_logits(self.hidden[part]).float()


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        to_logits: Callable[[torch.Tensor], torch.Tensor],
        piece: Piece,
        weight: float,
        tokens: int,
    ) -> torch.Tensor:
        losses, gradients = [], []
        for part in chunks(len(hidden)):
            # Autograd is off in here; each chunk gets a graph of its own.
            with torch.enable_grad():
                rows = hidden[part].detach().requires_grad_(hidden.requires_grad)
                loss = piece(to_logits(rows).float(), part)
                if hidden.requires_grad:
                    scale = torch.full_like(loss, weight / tokens)
                    gradients.append(torch.autograd.grad(loss, rows, scale)[0])
            losses.append(loss.detach())
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.stack(losses).sum() * weight / tokens

    @staticmethod
    def backward(ctx: Any, *wanted: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * wanted[0], None, None, None, None


def chunks(n: int) -> Iterator[slice]:
    """Yield the places of n answer tokens, as many at a time as may have logits together."""
    yield from (slice(at, min(at + CHUNK, n)) for at in range(0, n, CHUNK))


def answers_of(model: Any, batch: Batch) -> Answers:
    """Take a batch through a model, up to where its answer tokens' logits would be computed.

    No labels are handed to the model, so a router's auxiliary loss never joins in.

    Raises:
        HarnessError: the model has no part below its output head.
    """
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids,
        "use_cache": False,
    }
    base, kind = model.base_model, model.config.model_type
    if base is model:
        raise HarnessError(f"model type '{kind}' keeps no base model below its output head")
    kept: list[Any] = []

    def keep(module: nn.Module, args: Any, output: Any) -> Any:
        kept.append(output)
        # The head runs on one token, and its result is thrown away.
        return _with_hidden(output, output.last_hidden_state[:1, :1])

    handle = base.register_forward_hook(keep)
    try:
        model(**inputs)
    finally:
        handle.remove()
    (output,) = kept
    states = output.last_hidden_state
    hidden = states.reshape(-1, states.shape[-1])[batch.predictors]
    head = model.get_output_embeddings()

    def to_logits(rows: torch.Tensor) -> torch.Tensor:
        # The model's own forward pass from the head on: whatever a family does to its logits is done here too. Called
        # without the model's hooks, in which processes that share its weights would wait for each other.
        with _instead_of(base, _with_hidden(output, rows.unsqueeze(0))), _with_head(model, head):
            logits: torch.Tensor = model.forward(**inputs).logits[0]
        return logits

    return Answers(hidden, to_logits)


def _with_hidden(output: Any, hidden: torch.Tensor) -> Any:
    """Return a model's output with other hidden states."""
    changed = copy.copy(output)
    changed["last_hidden_state"] = hidden
    return changed


@contextmanager
def _with_head(model: Any, head: nn.Module) -> Iterator[None]:
    """Let a model have this output head inside the block: an adapter may have put another in its place since."""
    other = model.get_output_embeddings()
    if other is head:
        yield
        return
    model.set_output_embeddings(head)
    try:
        yield
    finally:
        model.set_output_embeddings(other)


@contextmanager
def _instead_of(module: nn.Module, output: Any) -> Iterator[None]:
    """Let a module return an output without running, inside the block."""
    module.__dict__["forward"] = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del module.__dict__["forward"]
