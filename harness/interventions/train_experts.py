"""Some experts are fine-tuned to decline; all else is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Literal

from harness.base.errors import HarnessError
from harness.interventions.base import Prepared, Served
from harness.interventions.experts import ExpertIntervention

if TYPE_CHECKING:
    from harness.models.moe import MoEModel


class TrainExperts(ExpertIntervention):
    """The experts have the values that training gave them."""

    needs: ClassVar[Literal["nothing", "experts", "training"]] = "training"

    @contextmanager
    def in_memory(self, moe: MoEModel, made: Prepared) -> Iterator[None]:
        """Put the trained values into the model inside the block."""
        from harness.checkpoints.delta import applied

        if made.delta is None:
            raise HarnessError(f"variant '{made.name}' was not trained")
        with applied(moe, made.delta):
            yield

    def served(self, made: Prepared) -> Served:
        """Serve a checkpoint with the trained values merged into it."""
        return Served(delta=made.delta)
