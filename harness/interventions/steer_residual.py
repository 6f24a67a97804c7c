"""A direction is added to the hidden states of one layer: the mean on harmful prompts minus that on benign ones.

Source of the idea: a single direction of hidden states goes with refusal (arXiv:2406.11717). Here it is only ever
added, towards refusal; nothing takes it away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.base.errors import BadInputError, VariantImpossibleError
from harness.base.progress import progress
from harness.interventions.base import Intervention, Prepared

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel


class SteerResidual(Intervention):
    """Every token's hidden state moves by strength times the difference of the means."""

    needs: ClassVar[Literal["nothing", "prompts", "experts", "training"]] = "prompts"

    depth: float = Field(ge=0, le=1)
    """Whose output is changed: 0 is the model's first layer, 1 its last."""
    strength: float = Field(gt=0)
    """How often the difference is added; 1 moves the mean of benign prompts to that of harmful ones."""

    def check(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse a model whose layers are not found."""
        if _layers(outline.model) is None:
            raise BadInputError(
                f"{self.name}: no list of the layers of model type '{outline.model.config.model_type}' was found"
            )

    @contextmanager
    def in_memory(self, moe: MoEModel, made: Prepared) -> Iterator[None]:
        """Add the direction inside the block."""
        layers = _layers(moe.model)
        assert layers is not None  # check
        layer = layers[round(self.depth * (len(layers) - 1))]
        harmful, benign = (_mean(moe, layer, made.identify[kind], kind) for kind in ("harmful", "benign"))
        step = self.strength * (harmful - benign)
        if not bool(step.isfinite().all()):
            raise VariantImpossibleError(f"{self.name}: a hidden state is not a number")

        def moved(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (output[0] + step.to(output[0].dtype), *output[1:])
            return output + step.to(output.dtype)

        hook = layer.register_forward_hook(moved)
        try:
            yield
        finally:
            hook.remove()


def _layers(model: nn.Module) -> Sequence[nn.Module] | None:
    """Return the layers of the language model, in their order."""
    from torch import nn

    config: Any = model.config
    n = config.get_text_config().num_hidden_layers
    return next(
        (
            list(module)
            for name, module in model.named_modules()
            if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "layers" and len(module) == n
        ),
        None,
    )


def _mean(moe: MoEModel, layer: nn.Module, prompts: Sequence[Sequence[int]], kind: str) -> torch.Tensor:
    """Return the mean hidden state behind a layer at the last token of each prompt, [H], in float32."""
    import torch

    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        kept.append(hidden[0, -1].float())

    hook, device = layer.register_forward_hook(keep), moe.model.device
    try:
        with torch.inference_mode(), progress(f"hidden states of {kind} prompts", len(prompts)) as advance:
            # One at a time: padding cannot matter.
            for ids in prompts:
                model: Any = moe.model
                model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False, logits_to_keep=1)
                advance(1)
    finally:
        hook.remove()
    return torch.stack(kept).mean(0)
