"""The gradient score: how strongly the refusal loss pulls at each expert, from one pass over the train split.

An alternative to counting activations, in the line of work that scores parameters by the gradient of a loss (SNIP,
arXiv:1810.02340; Fisher-weighted saliency, arXiv:1906.10771). Nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch

from harness.base.errors import BadInputError, HarnessError
from harness.training.bank import experts_implementation
from harness.training.checkpointing import checkpointed_from
from harness.training.examples import Example, batch_order, collate
from harness.training.loop import answer_loss

if TYPE_CHECKING:
    from harness.models.load import LoadedModel
    from harness.models.moe import MoEModel

# The one implementation of transformers whose backward costs a weight's size once, not once an expert.
_IMPLEMENTATION = "grouped_mm"


def expert_gradients(
    loaded: LoadedModel,
    examples: Sequence[Example],
    *,
    batch_size: int,
    checkpointing: bool = False,
    on_examples: Callable[[int], None] = lambda examples: None,
) -> torch.Tensor:
    """Return the size of the loss's gradient on each expert, float64 [L, E].

    The loss is the cross-entropy of an answer token. Of each batch the gradient's squared norm is taken expert by
    expert as soon as a layer's backward is done, and the gradient dropped, so no more than one layer's exists at a
    time; the score is the root of the mean over batches.

    Args:
        loaded: the model, whose weights stay as they are.
        examples: refusals of harmful prompts.
        batch_size: examples in one backward pass.
        checkpointing: recompute activations to save memory.
        on_examples: called with the number of examples after each batch.

    Raises:
        BadInputError: no examples.
        HarnessError: a gradient that is not a number.
    """
    if not examples:
        raise BadInputError("no harmful train prompts: a gradient score needs refusals to take the loss on")
    moe, pad = loaded.moe, int(loaded.tokenizer.pad_token_id)
    squares = torch.zeros(len(moe.layers), moe.n_experts, dtype=torch.float64)
    batches = batch_order(examples, batch_size, seed=0, epoch=0)
    recomputed = checkpointed_from(moe, moe.layers[0].index) if checkpointing else nullcontext()
    with _gradients_added_to(squares, moe), recomputed:
        for rows in batches:
            batch = collate([examples[i] for i in rows], pad, loaded.device)
            (answer_loss(moe.model, batch) / len(batch.targets)).backward()
            on_examples(len(rows))
    scores: torch.Tensor = (squares / len(batches)).sqrt()
    if not bool(scores.isfinite().all()):
        layer = int((~scores.isfinite()).any(dim=1).int().argmax())
        raise HarnessError(f"layer {moe.layers[layer].index}: the refusal loss's gradient is not a number")
    return scores


@contextmanager
def _gradients_added_to(squares: torch.Tensor, moe: MoEModel) -> Iterator[None]:
    """Add each fused weight's squared gradient norms, [E], to its layer's row, and drop the gradient."""
    with ExitStack() as stack:
        for place, layer in enumerate(moe.layers):
            for name in layer.weights:
                weight = layer.weight(name)
                weight.requires_grad_(True)
                stack.callback(weight.requires_grad_, False)
                stack.callback(setattr, weight, "grad", None)

                def add(parameter: torch.Tensor, place: int = place) -> None:
                    assert parameter.grad is not None
                    squares[place] += parameter.grad.float().flatten(1).square().sum(dim=1).double().cpu()
                    parameter.grad = None

                stack.callback(weight.register_post_accumulate_grad_hook(add).remove)
        stack.enter_context(experts_implementation(moe, _IMPLEMENTATION))
        yield
