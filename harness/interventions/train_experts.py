"""Some experts are fine-tuned to decline; all else is frozen."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar, Literal

from harness.base.errors import HarnessError
from harness.interventions.base import Prepared, Served
from harness.interventions.experts import ExpertIntervention

if TYPE_CHECKING:
    from harness.models.moe import MoEModel


class TrainExperts(ExpertIntervention):
    """The experts have the values that training gave them."""

    needs: ClassVar[Literal["nothing", "prompts", "experts", "training"]] = "training"

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Put the trained values into the model inside the block."""
        from harness.checkpoints.delta import applied

        if made.delta is None:
            raise HarnessError(f"variant '{made.name}' was not trained")
        return applied(moe, made.delta)

    def served(self, made: Prepared) -> Served:
        """Serve a checkpoint with the trained values merged into it."""
        return Served(delta=made.delta)
