"""What the kinds that steer the router away from chosen experts, or towards them, have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

from harness.base.errors import HarnessError
from harness.interventions.base import Intervention, Prepared, Served

if TYPE_CHECKING:
    from harness.experts.select import ExpertSelection
    from harness.models.moe import MoEModel


class RoutedIntervention(Intervention):
    """No token is routed to the variant's experts, or every token is; nothing is trained."""

    activates: ClassVar[bool] = False
    """Whether every token is."""

    def why_impossible(self, outline: MoEModel, experts: ExpertSelection | None) -> str | None:
        """Return why tokens cannot be kept from all these experts, or sent to all of them; or None."""
        from harness.interventions.masking import why_not_steerable

        return None if experts is None else why_not_steerable(outline, *self._masks(experts))

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Mask or activate the experts inside the block."""
        from harness.interventions.masking import steered

        if made.selection is None:
            raise HarnessError(f"variant '{made.name}' has no selection to {self.intervention} by")
        return steered(moe, *self._masks(made.selection))

    def served(self, made: Prepared) -> Served | None:
        """Serve the base model with the experts masked; vLLM's kernels have no place to activate some."""
        if self.activates:
            return None
        return Served(masked={} if made.selection is None else made.selection.by_layer())

    def _masks(self, experts: ExpertSelection) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
        """Return silenced and activated experts by layer."""
        chosen = experts.by_layer()
        return ({}, chosen) if self.activates else (chosen, {})
