"""Activation checkpointing from the lowest trained layer on: below it nothing is kept, recomputed or differentiated.

Without activation checkpointing autograd sees to that by itself: where no input and no weight wants a gradient, it
builds nothing. transformers' own switch for checkpointing undoes it, since it makes the embeddings' output want one
(reentrant checkpoints need that, those used here do not), so that every layer is recomputed and differentiated. Here
the layers are switched one by one, from the lowest trained one on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from torch.utils.checkpoint import checkpoint

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    from torch import nn

    from harness.models.moe import MoEModel


@contextmanager
def checkpointed_from(moe: MoEModel, first: int) -> Iterator[None]:
    """Recompute the activations of the layers from `first` on in the backward pass, inside the block.

    Dropout and router noise stay off, so that the state of random numbers need not be kept.

    Args:
        moe: the model.
        first: true index of the lowest layer with something to train.

    Raises:
        BadInputError: the model's layers cannot be recomputed.
    """
    layers = layers_from(moe, first)
    if not layers:
        raise BadInputError(
            f"model type '{moe.model.config.model_type}' cannot recompute activations: "
            "set training.gradient_checkpointing=false"
        )
    recompute = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    try:
        for layer in layers:
            # Attributes of transformers' GradientCheckpointingLayer, which its own switch sets too. It recomputes only
            # a layer in training mode; what is inside the layer stays in evaluation mode.
            layer.gradient_checkpointing = True  # type: ignore[assignment]
            layer._gradient_checkpointing_func = recompute  # type: ignore[assignment]
            layer.training = True
        yield
    finally:
        for layer in layers:
            layer.training = False
            for name in ("gradient_checkpointing", "_gradient_checkpointing_func"):
                vars(layer).pop(name, None)


def layers_from(moe: MoEModel, first: int) -> list[nn.Module]:
    """Return the layers that can be recomputed, of the stack that holds the experts and from `first` on."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    # "model.layers.1.mlp.experts" of layer 1 lies in the stack "model.layers".
    holder = moe.layers[0]
    stack = re.escape(holder.name[: holder.name.rindex(f".{holder.index}.") + 1])
    named = ((re.fullmatch(rf"{stack}(\d+)", name), module) for name, module in moe.model.named_modules())
    return [
        module
        for match, module in named
        if match and int(match[1]) >= first and isinstance(module, GradientCheckpointingLayer)
    ]
