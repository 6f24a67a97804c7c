"""The run's model in the memory of this process."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from harness.base.progress import say
from harness.checkpoints.proof import model_fingerprint
from harness.models.load import LoadedModel, load_model, quiet_transformers
from harness.models.quantized import quantization_of

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel

T = TypeVar("T")


class ModelInMemory:
    """A model that is loaded when first needed; a finished run is reported without it.

    Args:
        ref: the model on disk.
        outline: the model without weights.
        dtype: of its weights in memory, "auto" for the checkpoint's own.
        device: where it goes.

    Attributes:
        make_room: called before the model is loaded; an engine that holds weights of its own frees them here.
    """

    def __init__(self, ref: ModelRef, outline: MoEModel, dtype: str, device: str) -> None:
        self.ref = ref
        self.outline = outline
        self.dtype = dtype
        self.device = device
        self.make_room: Callable[[], None] = lambda: None
        self._kept: dict[Hashable, Any] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the weights, configuration, tokenizer and chat template."""
        return model_fingerprint(self.ref.path)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model with its weights."""
        quiet_transformers()
        self.make_room()
        quantization = quantization_of(self.ref.path)
        say(f"loading {self.ref.name}" + (f", decoding {quantization.method}" if quantization else ""))
        return load_model(self.ref, self.dtype, self.device, may_be_dense=not self.outline.layers)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when this key was first asked for since the model was loaded."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept

    def unload(self) -> None:
        """Free the model's memory; whoever needs it next loads it again."""
        import gc

        import torch

        # What was made with the model may hold it.
        self._kept.clear()
        if self.__dict__.pop("loaded", None) is not None:
            gc.collect()
            torch.cuda.empty_cache()
