"""Routing steer: some experts are never routed to; nothing is trained.

Source of the idea: SteerMoE (arXiv:2509.09660), which masks or boosts router logits at inference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import model_validator

from harness.base.errors import BadInputError
from harness.interventions.experts import ExpertIntervention
from harness.interventions.routed import RoutedIntervention

if TYPE_CHECKING:
    from harness.config import SelectionConfig


class Steer(RoutedIntervention, ExpertIntervention):
    """The experts are masked in the router."""

    @model_validator(mode="after")
    def _towards_safety(self) -> Steer:
        if self.selection is not None and self.selection.direction == "safe":
            raise ValueError(
                "selection: experts that go with safe answers are not silenced: direction: unsafe"
            )
        return self

    def selection_of(self, settings: SelectionConfig) -> SelectionConfig:
        """Return how the experts are selected.

        Raises:
            BadInputError: the run selects experts of safe answers, and the variant none of its own.
        """
        own = super().selection_of(settings)
        if self.experts == "selected" and own.direction == "safe":
            raise BadInputError(
                f"selection.direction = safe: experts that go with safe answers are not silenced: leave {self.name} out"
            )
        return own
