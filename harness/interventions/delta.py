"""An expert delta, trained by an earlier run: the experts have the values that it holds."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from harness.interventions.base import Prepared, Served
from harness.interventions.files import FileIntervention

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.checkpoints.delta_file import DeltaCard
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel


class Delta(FileIntervention):
    """The experts of a delta folder, or of a run's variant folder, in place of base's."""

    known_by: ClassVar[str | None] = "delta.json"

    @cached_property
    def _read(self) -> tuple[DeltaCard, ExpertDelta]:
        from harness.checkpoints.delta_file import read_delta

        return read_delta(self.path)

    def check(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse a damaged delta, and one of another base."""
        from harness.checkpoints.apply import check_base

        check_base(ref, *self._read)

    def content(self) -> dict[str, Any]:
        """Return the hash of the values, and what the delta says of their base."""
        card, _ = self._read
        return {"sha256": card.sha256, "base": card.base.name, "parameters": card.parameters}

    def bytes_beside_base(self) -> int:
        """Return the size of the delta's values."""
        values = self._read[1].tensors.values()
        return sum(tensor.nbytes for tensors in values for tensor in tensors.values())

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Put the values into the model inside the block."""
        from harness.checkpoints.delta import applied

        return applied(moe, self._read[1])

    def served(self, made: Prepared) -> Served:
        """Serve a checkpoint with the values merged into it."""
        return Served(delta=self._read[1])
