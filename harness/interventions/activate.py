"""Activated experts: some are in the top-k of every token; nothing is trained.

Source of the idea: SteerMoE (arXiv:2509.09660), whose setting for safety activates experts of safe answers and silences
none.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from harness.interventions.experts import ExpertIntervention
from harness.interventions.routed import RoutedIntervention


class Activate(RoutedIntervention, ExpertIntervention):
    """The experts get a score slightly above the largest in the router."""

    activates: ClassVar[bool] = True

    @model_validator(mode="after")
    def _towards_safety(self) -> Activate:
        if self.experts == "all":
            raise ValueError("experts: expected 'selected', 'random' or 'most_used', found 'all'")
        if self.experts == "selected" and (self.selection is None or self.selection.direction != "safe"):
            raise ValueError("selection: expected direction: safe, experts that go with safe answers")
        return self
