"""What the kinds that keep chosen experts from being routed to have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from harness.base.errors import HarnessError
from harness.interventions.base import Intervention, Prepared, Served

if TYPE_CHECKING:
    from harness.experts.select import ExpertSelection
    from harness.models.moe import MoEModel


class SilencedExperts(Intervention):
    """The variant's experts are masked in the router; nothing is trained."""

    def why_impossible(self, outline: MoEModel, experts: ExpertSelection | None) -> str | None:
        """Return why these experts cannot all be kept from being routed to, or None."""
        from harness.interventions.masking import why_not_steerable

        return None if experts is None else why_not_steerable(outline, experts.by_layer())

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Mask the experts inside the block."""
        from harness.interventions.masking import steered

        if made.selection is None:
            raise HarnessError(f"variant '{made.name}' has no selection to {self.intervention} by")
        return steered(moe, made.selection.by_layer())

    def served(self, made: Prepared) -> Served:
        """Serve the base model with the experts masked."""
        return Served(masked={} if made.selection is None else made.selection.by_layer())
