"""No intervention: the model as it is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from harness.interventions.base import Intervention, Prepared, Served

if TYPE_CHECKING:
    from harness.models.moe import MoEModel


class NoIntervention(Intervention):
    """The model as it is; every comparison starts here."""

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Leave the model as it is."""
        return nullcontext()

    def served(self, made: Prepared) -> Served:
        """Serve the base model."""
        return Served()
