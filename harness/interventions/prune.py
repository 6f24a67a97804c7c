"""Pruned experts: those that identify prompts use least are never routed to, as if they had been taken out.

An audit of expert pruning: what goes with experts that are hardly used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from harness.base.errors import BadInputError, HarnessError
from harness.interventions.routed import RoutedIntervention

if TYPE_CHECKING:
    from harness.experts.draws import Selected
    from harness.experts.select import ExpertSelection
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel


class Prune(RoutedIntervention):
    """A share of each layer's experts is masked in the router."""

    needs: ClassVar[Literal["nothing", "prompts", "experts", "training"]] = "experts"

    share: float = Field(gt=0, lt=1)
    """The share of each layer's experts that goes, rounded down."""

    @property
    def uses_selection(self) -> bool:
        """It depends on how much each expert is used, which is counted for the selection."""
        return True

    def check(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse a share that takes none, or leaves fewer experts than a token needs."""
        n, k = outline.n_experts, outline.experts_per_token
        gone = int(self.share * n)
        if gone == 0 or n - gone < k:
            raise BadInputError(
                f"{self.name}: share = {self.share:g} takes {gone} of {n} experts per layer: expected 1 or more to go "
                f"and {k} to stay, as many as a token needs"
            )

    def choose(self, selected: Selected | None, outline: MoEModel, seed: int) -> ExpertSelection:
        """Return the experts that are used least, by all identify prompts in the selection's phase."""
        if selected is None:
            raise HarnessError(f"variant '{self.name}' has no counts to prune by")
        return selected.least_used(self.share)
