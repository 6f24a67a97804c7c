"""What the kinds that act on experts have in common: which experts these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from harness.base.errors import HarnessError
from harness.interventions.base import Intervention

if TYPE_CHECKING:
    from harness.experts.select import ExpertSelection
    from harness.models.moe import MoEModel


class ExpertIntervention(Intervention):
    """An intervention on some experts."""

    needs: ClassVar[Literal["nothing", "experts", "training"]] = "experts"

    experts: Literal["selected", "random", "all"]
    """Which experts it acts on; random draws as many per layer as are selected."""

    @property
    def uses_selection(self) -> bool:
        """Whether it depends on which experts the run selects: random draws do, by their number per layer."""
        return self.experts != "all"

    @property
    def is_drawn(self) -> bool:
        """Whether its experts are drawn at random."""
        return self.experts == "random"

    def choose(self, selected: ExpertSelection | None, outline: MoEModel, seed: int) -> ExpertSelection:
        """Return the experts that it acts on."""
        from harness.experts.select import ExpertSelection, random_experts

        if self.experts == "all":
            return ExpertSelection("all", "none", tuple(outline.all_experts()))
        if selected is None:
            raise HarnessError(f"variant '{self.name}' has no selection to act on")
        return random_experts(selected, outline.n_experts, seed) if self.is_drawn else selected
