"""Activated experts: some are in the top-k of every token; nothing is trained.

Source of the idea: SteerMoE (arXiv:2509.09660), whose setting for safety activates experts of safe answers and silences
none.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pydantic import model_validator

from harness.base.errors import HarnessError
from harness.interventions.experts import ExpertIntervention

if TYPE_CHECKING:
    from harness.experts.select import ExpertSelection
    from harness.interventions.base import Prepared
    from harness.models.moe import MoEModel


class Activate(ExpertIntervention):
    """The experts get a score slightly above the largest in the router."""

    @model_validator(mode="after")
    def _towards_safety(self) -> Activate:
        if self.experts == "all":
            raise ValueError("experts: expected 'selected', 'random' or 'most_used', found 'all'")
        if self.experts == "selected" and (self.selection is None or self.selection.direction != "safe"):
            raise ValueError("selection: expected direction: safe, experts that go with safe answers")
        return self

    def why_impossible(self, outline: MoEModel, experts: ExpertSelection | None) -> str | None:
        """Return why these experts cannot all be routed to by every token, or None."""
        from harness.interventions.masking import why_not_steerable

        return None if experts is None else why_not_steerable(outline, {}, experts.by_layer())

    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Activate the experts inside the block."""
        from harness.interventions.masking import steered

        if made.selection is None:
            raise HarnessError(f"variant '{made.name}' has no selection to activate")
        return steered(moe, {}, made.selection.by_layer())
