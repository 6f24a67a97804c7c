"""What the kinds that act on experts have in common: which experts these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import model_validator

from harness.base.errors import HarnessError
from harness.interventions.base import Intervention

if TYPE_CHECKING:
    from harness.experts.draws import Selected
    from harness.experts.select import ExpertSelection
    from harness.models.moe import MoEModel


class ExpertIntervention(Intervention):
    """An intervention on some experts."""

    needs: ClassVar[Literal["nothing", "prompts", "experts", "training"]] = "experts"

    experts: Literal["selected", "random", "most_used", "all"]
    """Which experts it acts on; random ones and the most used are as many per layer as are selected."""
    match: Literal["use", "layer"] = "use"
    """What random draws share with the selection beside the number per layer: about its use in all, or nothing."""

    @model_validator(mode="after")
    def _only_draws_are_matched(self) -> ExpertIntervention:
        if self.match != "use" and not self.is_drawn:
            raise ValueError(f"match: only experts: random are matched, found experts: {self.experts}")
        return self

    @property
    def uses_selection(self) -> bool:
        """Whether it depends on which experts the run selects: random draws do, by their number per layer and use."""
        return self.experts != "all"

    @property
    def is_drawn(self) -> bool:
        """Whether its experts are drawn at random."""
        return self.experts == "random"

    def choose(self, selected: Selected | None, outline: MoEModel, seed: int) -> ExpertSelection:
        """Return the experts that it acts on."""
        from harness.experts.select import ALL, ExpertSelection

        if self.experts == "all":
            return ExpertSelection(ALL, "none", tuple(outline.all_experts()))
        if selected is None:
            raise HarnessError(f"variant '{self.name}' has no selection to act on")
        if self.experts == "most_used":
            return selected.most_used()
        return selected.draw(self.match, seed) if self.is_drawn else selected.selection
