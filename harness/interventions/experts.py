"""What the kinds that act on experts have in common: which experts these are."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from harness.base.errors import HarnessError
from harness.experts.select import Limits
from harness.interventions.base import FOR_PEOPLE, Intervention
from harness.routing.phases import Phase

if TYPE_CHECKING:
    from harness.config import SelectionConfig
    from harness.experts.draws import Selected
    from harness.experts.select import ExpertSelection
    from harness.models.moe import MoEModel

_LIMITS = frozenset(field.name for field in fields(Limits))


class OwnSelection(BaseModel):
    """How an intervention selects its experts where that is not how the run does; what is not given is the run's."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    method: str | None = None
    """How to score experts."""
    phase: Phase | None = None
    """Tokens to score."""
    direction: Literal["unsafe", "safe"] | None = None
    """Experts that harmful prompts use more, or that benign ones do."""
    top_k: PositiveInt | None = None
    """At most this many experts. With any limit of its own, none of the run's holds."""
    threshold: float | None = None
    """Experts that score at least this."""
    per_layer: PositiveInt | None = None
    """At most this many experts per layer."""
    top_p: float | None = Field(None, gt=0, le=1)
    """The fewest experts of each layer that hold this share of its positive scores."""
    max_q: float | None = Field(None, gt=0, le=1)
    """Experts with at most this q-value."""

    def over(self, settings: SelectionConfig) -> SelectionConfig:
        """Return a run's settings with these in place of its own."""
        given = self.model_dump(exclude_none=True)
        return settings.model_copy(update=self._without_limits | given)

    @property
    def _without_limits(self) -> dict[str, None]:
        """With any limit of its own, none of the run's holds."""
        given = self.model_dump(exclude_none=True)
        return dict.fromkeys(_LIMITS) if given.keys() & _LIMITS else {}

    @property
    def replaced(self) -> frozenset[str]:
        """The dotted names of the run's settings that these take the place of."""
        return frozenset(
            f"selection.{name}" for name in (*self.model_dump(exclude_none=True), *self._without_limits)
        )


class ExpertIntervention(Intervention):
    """An intervention on some experts."""

    needs: ClassVar[Literal["nothing", "prompts", "experts", "training"]] = "experts"

    experts: Literal["selected", "random", "most_used", "all"]
    """Which experts it acts on; random ones and the most used are as many per layer as are selected."""
    match: Literal["use", "layer"] = "use"
    """What random draws share with the selection beside the number per layer: about its use in all, or nothing."""

    selection: OwnSelection | None = None
    """How they are selected; by default as the run selects."""

    @model_validator(mode="after")
    def _only_selected_experts_are_selected(self) -> ExpertIntervention:
        if self.selection is not None and self.experts != "selected":
            raise ValueError(f"selection: only experts: selected have one, found experts: {self.experts}")
        return self

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
    def is_matched(self) -> bool:
        """Whether its experts are as many per layer as the run's intervention acts on."""
        return self.experts in ("random", "most_used")

    def selection_of(self, settings: SelectionConfig) -> SelectionConfig:
        """Return how the experts are selected: as the run's settings say, but for what it says itself."""
        return settings if self.selection is None else self.selection.over(settings)

    @property
    def replaced_settings(self) -> frozenset[str]:
        """The settings of the run's selection that its own replaces."""
        return frozenset() if self.selection is None else self.selection.replaced

    def shown(self) -> dict[str, Any]:
        """Return the fields that concern it: only draws are matched."""
        fields = super().shown()
        return fields if self.is_drawn else {name: fields[name] for name in fields if name != "match"}

    @property
    def is_drawn(self) -> bool:
        """Whether its experts are drawn at random."""
        return self.experts == "random"

    def fingerprint(self) -> object:
        """Return the specification without what selects the experts: the experts themselves decide the answers."""
        return self.model_dump(mode="json", exclude=FOR_PEOPLE | {"selection"})

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
