"""Routing steer: some experts are never routed to; nothing is trained.

Source of the idea: SteerMoE (arXiv:2509.09660), which masks or boosts router logits at inference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from harness.interventions.experts import ExpertIntervention
from harness.interventions.routed import RoutedIntervention

if TYPE_CHECKING:
    from harness.config import SelectionConfig


_NOT_SILENCED = "experts that go with safe answers are not silenced"


class Steer(RoutedIntervention, ExpertIntervention):
    """The experts are masked in the router."""

    @model_validator(mode="after")
    def _towards_safety(self) -> Steer:
        if self.selection is not None and self.selection.direction == "safe":
            raise ValueError(f"selection: {_NOT_SILENCED}: direction: unsafe")
        return self

    def why_not_with(self, selection: SelectionConfig) -> str | None:
        """Return why it silences no experts that a run selects so; None where it does."""
        if self.experts == "selected" and selection.direction == "safe":
            return _NOT_SILENCED
        return None
