"""Plain facts about a model's MoE layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.base.errors import BadInputError
from harness.models.chat import ChatTemplate
from harness.models.load import ModelRef, load_tokenizer
from harness.models.moe import MoEModel
from harness.models.quantized import quantization_in


def inspect(moe: MoEModel) -> dict[str, Any]:
    """Return the facts about a model that choosing and training experts depends on.

    `moe_layers` are true layer indices; `trainable_if_selected` is the number of parameters of one expert, all
    that selecting it makes trainable; `routers` is the number of layers whose router logits can be recorded.
    `quantized` is there for quantised models alone, with the `detail` of the method and what is possible: `capture`
    (and evaluation) and `training`.
    """
    first = moe.layers[0]
    quantization = quantization_in(moe.model.config.to_dict())
    return {
        "supported": True,
        "model_type": moe.model.config.model_type,
        "moe_layers": moe.layer_indices,
        "experts_per_layer": moe.n_experts,
        "experts_per_token": moe.experts_per_token,
        "shared_experts": _one({layer.shared_experts for layer in moe.layers}),
        "layout": {
            **asdict(first.layout),
            "tensors": {n: list(first.weight(n).shape) for n in first.weights},
        },
        "routers": sum(layer.router is not None for layer in moe.layers),
        "quantization": None if quantization is None else quantization.method,
        **({} if quantization is None else {"quantized": quantization.facts()}),
        "parameters": moe.n_parameters,
        "trainable_if_selected": _one({layer.parameters_per_expert for layer in moe.layers}),
    }


def thinking_of(ref: ModelRef) -> str:
    """Say in one line what a model's chat template can make of its thinking, or why that is not known."""
    try:
        return ChatTemplate(load_tokenizer(ref)).abilities.in_words()
    except BadInputError as error:
        # The model can be looked at without a tokenizer.
        return f"not known: {error}"


def _one(values: set[int]) -> int | Sequence[int]:
    """Return the number that all layers share, or the different ones in order."""
    return next(iter(values)) if len(values) == 1 else sorted(values)
