"""A PEFT adapter of base: LoRA on attention, or on experts through `target_parameters`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from harness.interventions.base import Prepared
from harness.interventions.files import FileIntervention

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel


class Adapter(FileIntervention):
    """The base model with the adapter of a folder, which PEFT puts in and takes out."""

    known_by: ClassVar[str | None] = "adapter_config.json"

    any_base: bool = False
    """Take the adapter though it names another base, as where that is the same model under another name."""

    def check(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse an adapter of another base."""
        from harness.checkpoints.adapter import check_adapter

        check_adapter(self.path, ref, self.any_base)

    def content(self) -> dict[str, Any]:
        """Return the hash of the adapter's configuration and weights."""
        from harness.checkpoints.adapter import adapter_fingerprint

        return {"sha256": adapter_fingerprint(self.path)}

    def bytes_beside_base(self) -> int:
        """Return the size of the adapter's weights."""
        from harness.checkpoints.adapter import TENSORS

        return (self.path / TENSORS).stat().st_size

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Put the adapter into the model inside the block."""
        from harness.checkpoints.adapter import adapted

        return adapted(moe.model, self.path)
