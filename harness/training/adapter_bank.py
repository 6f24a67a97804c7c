"""Low-rank factors of a whole model's matrices in training, by PEFT: what the expert bank is compared with.

PEFT puts LoRA into the linear layers of attention and, as parameters, into the fused matrices of all experts. The
training loop treats the factors as it does a bank's values; base's own weights never get a gradient.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from harness.base.errors import BadInputError
from harness.base.files import move_folder
from harness.checkpoints.adapter import CONFIG, TENSORS, own_modules_again

if TYPE_CHECKING:
    import torch

    from harness.models.moe import MoEModel
    from harness.training.bank import LayerBank

_ATTENTION = re.compile(r"\.layers\.\d+\.(?:\w*attn|\w*attention)\.(?:.+\.)?(\w+)$")
_IN_A_LAYER = re.compile(r".*\.layers\.\d+\.")


class AdapterBank:
    """The factors of an adapter that is in a model.

    Args:
        moe: the model.
        wrapped: PEFT's model around it.
    """

    # What the loop keeps per expert is kept of single experts alone.
    layers: Mapping[int, LayerBank] = {}

    def __init__(self, moe: MoEModel, wrapped: Any) -> None:
        self.moe = moe
        self._wrapped = wrapped

    def _named(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.moe.model.named_parameters() if "lora_" in name}

    def parameters(self) -> list[nn.Parameter]:
        """Return the trainable tensors."""
        return list(self._named().values())

    def state(self) -> dict[str, torch.Tensor]:
        """Return the trainable tensors by name."""
        return {name: value.detach() for name, value in self._named().items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the values of an adapter of the same shape."""
        own = self.state()
        if own.keys() != state.keys():
            raise BadInputError("the state is that of an adapter with other settings")
        for name, value in own.items():
            value.copy_(state[name])

    @property
    def size(self) -> int:
        """Number of trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def installed(self) -> AbstractContextManager[None]:
        """The adapter is in the model as long as it exists."""
        return nullcontext()

    def switched_off(self) -> AbstractContextManager[None]:
        """Let the model run without the adapter inside the block, as the frozen reference."""
        context: AbstractContextManager[None] = self._wrapped.disable_adapter()
        return context

    def save(self, folder: Path, base: str) -> None:
        """Write the adapter as PEFT does, as a whole folder.

        Args:
            folder: the new folder.
            base: what the base model is called, which the adapter names.
        """
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        self._wrapped.peft_config["default"].base_model_name_or_path = base
        self._wrapped.save_pretrained(str(partial), save_embedding_layers=False)
        for path in partial.iterdir():
            if path.name not in (CONFIG, TENSORS):
                path.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        move_folder(partial, folder)


def targets(moe: MoEModel) -> tuple[list[str], list[str]]:
    """Return the names by which PEFT finds attention's linear layers, and the experts' matrices.

    Raises:
        BadInputError: the model has no such layers.
    """
    modules = moe.model.named_modules()
    linear = {
        match[1]
        for name, module in modules
        if isinstance(module, nn.Linear) and (match := _ATTENTION.search(name))
    }
    if not linear:
        raise BadInputError(
            f"no linear layers of attention were found in model type '{moe.model.config.model_type}'"
        )
    parameters = {
        f"{_IN_A_LAYER.sub('', layer.name)}.{name}"
        for layer in moe.layers
        for name in layer.weights
        if layer.weight(name).dim() == 3
    }
    return sorted(linear), sorted(parameters)


@contextmanager
def adapter_bank(moe: MoEModel, rank: int, alpha: float) -> Iterator[AdapterBank]:
    """Put a fresh adapter into a model inside the block, on attention and all experts; it computes what base does.

    Raises:
        BadInputError: the model has no layers for it.
    """
    from peft import LoraConfig, PeftModel

    linear, parameters = targets(moe)
    # A fraction is one that PEFT takes too.
    scale: Any = alpha
    config = LoraConfig(
        r=rank, lora_alpha=scale, target_modules=linear, target_parameters=parameters, task_type="CAUSAL_LM"
    )
    with own_modules_again(moe.model):
        with warnings.catch_warnings():
            # It asks transformers in a way that goes out of use.
            warnings.simplefilter("ignore")
            wrapped = PeftModel(moe.model, config)
        yield AdapterBank(moe, wrapped)
