"""Interventions, and the variants that they make.

An intervention turns the model into a variant; a baseline is an intervention that another is compared with. A kind is
one class in one file, registered by name; a variant is one YAML file with the kind's name and the kind's own fields.
Nothing outside a kind's file knows its name or its fields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from harness.base.fingerprint import fingerprint
from harness.base.registry import Registry

if TYPE_CHECKING:
    from harness.base.settings import Decides
    from harness.checkpoints.delta import ExpertDelta
    from harness.config import SelectionConfig
    from harness.experts.draws import Selected
    from harness.experts.select import ExpertSelection
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel

# The fields of a specification that are for people alone.
FOR_PEOPLE = {"name", "description", "citation", "published", "left_out"}


class Lora(NamedTuple):
    """The size of an adapter that is trained on the whole model."""

    rank: int
    alpha: float


class Intervention(BaseModel, ABC):
    """One specification: a file of baselines/, read by the class of its kind.

    A kind adds its own fields as pydantic fields and says what the pipeline has to make for it.

    Attributes:
        needs: the work before the variant can answer: nothing, the tokens of the identify prompts, a choice of
            experts, or their training too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    needs: ClassVar[Literal["nothing", "prompts", "experts", "training"]] = "nothing"
    known_by: ClassVar[str | None] = None
    """The file by which a folder on the command line is known to hold an intervention of this kind."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    """The variant's name; the file is called like it."""
    description: str
    """One sentence for tables."""
    intervention: str
    """The name of the kind."""
    citation: str | None = None
    """Where the idea comes from."""
    published: dict[str, str | int | float] = Field(default_factory=dict)
    """The settings that its authors give, where they are not what is done here too."""
    left_out: tuple[str, ...] = ()
    """The parts of a published method that are not done here."""

    @property
    def uses_selection(self) -> bool:
        """Whether it depends on which experts the run selects."""
        return False

    @property
    def depends_on(self) -> tuple[Decides, ...]:
        """The kinds of settings that can change what the variant answers."""
        chosen: tuple[Decides, ...] = ("experts",) if self.uses_selection else ()
        trained: tuple[Decides, ...] = ("training",) if self.needs == "training" else ()
        return ("answers", *chosen, *trained)

    @property
    def adapter(self) -> Lora | None:
        """The adapter that is trained on the whole model in place of chosen experts; None where none is."""
        return None

    @property
    def is_other_model(self) -> bool:
        """Whether another model answers in place of base (`other_model`)."""
        return False

    def other_model(self, base: ModelRef) -> ModelRef:
        """Return the model that answers in place of base, where `is_other_model`; base is freed for it."""
        raise NotImplementedError

    @property
    def is_matched(self) -> bool:
        """Whether its experts are as many per layer as the run's intervention acts on."""
        return False

    def selection_of(self, settings: SelectionConfig) -> SelectionConfig:
        """Return how the experts are selected that it acts on; by default as the run's settings say."""
        return settings

    def why_not_with(self, selection: SelectionConfig) -> str | None:
        """Return why it does not act on experts that are selected so; None where it does."""
        return None

    @property
    def replaced_settings(self) -> frozenset[str]:
        """The dotted names of the run's settings that do not concern it, since it brings its own."""
        return frozenset()

    def shown(self) -> dict[str, Any]:
        """Return the fields that concern it, for people."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def is_drawn(self) -> bool:
        """Whether its experts are drawn at random, so that further draws (`--draws`) are further variants."""
        return False

    def choose(self, selected: Selected | None, outline: MoEModel, seed: int) -> ExpertSelection | None:
        """Return the experts that it acts on.

        Args:
            selected: the experts that were selected for it (`selection_of`), or for the run's intervention
                (`is_matched`), where some variant uses a selection.
            outline: the model without weights.
            seed: of a random draw.
        """
        return None

    def why_impossible(self, outline: MoEModel, experts: ExpertSelection | None) -> str | None:
        """Return why the model cannot be made into this variant, or None."""
        return None

    def located(self, folder: Path) -> Self:
        """Return the specification with the files that it names looked up from the folder of its own file."""
        return self

    def check(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse a model, or files that the specification names, before anything is written.

        Args:
            ref: the base model on disk.
            outline: the same without weights.

        Raises:
            BadInputError: says what is wrong, and where.
        """
        return None

    def caveat(self, ref: ModelRef) -> str | None:
        """Return what a reader must know of how the variant is asked, to follow its name; None where as base is.

        It is kept in run.json, and the conclusion says it.
        """
        return None

    def bytes_beside_base(self) -> int:
        """Return what the variant holds in memory beside base's weights; another model takes base's place instead."""
        return 0

    def content(self) -> dict[str, Any]:
        """Return what the files that it names hold, by hash; kept in run.json beside the specification."""
        return {}

    def fingerprint(self) -> object:
        """Return everything that can change what the variant answers; by default the whole specification."""
        return self.model_dump(mode="json", exclude=FOR_PEOPLE)

    def system_message(self) -> str | None:
        """Return the system prompt that the variant answers under; the engine puts it before each question."""
        return None

    @abstractmethod
    def in_memory(self, moe: MoEModel, made: Prepared) -> AbstractContextManager[None]:
        """Make the model in memory behave as the variant inside the block; afterwards it is base again, exactly.

        Raises:
            HarnessError: what it acts by was not made.
            VariantImpossibleError: it does not work on this model.
        """

    def served(self, made: Prepared) -> Served | None:
        """Return how an engine that loads weights by itself becomes the variant.

        None says that such an engine cannot serve this kind, and the run refuses it by name before anything is made;
        it is therefore also asked of a variant without its experts and delta.
        """
        return None


def _no_kind(entry: object) -> str | None:
    is_kind = isinstance(entry, type) and issubclass(entry, Intervention)
    return None if is_kind else "a class that is an Intervention"


INTERVENTIONS: Registry[type[Intervention]] = Registry("intervention kind", "harness.interventions", _no_kind)
for _name, _class in (
    ("none", "NoIntervention"),
    ("system_prompt", "SystemPrompt"),
    ("steer", "Steer"),
    ("train_experts", "TrainExperts"),
    ("delta", "Delta"),
    ("checkpoint", "Checkpoint"),
    ("adapter", "Adapter"),
    ("mask", "Mask"),
    ("activate", "Activate"),
    ("prune", "Prune"),
    ("train_lora", "TrainLora"),
    ("steer_residual", "SteerResidual"),
):
    INTERVENTIONS.add(_name, f"harness.interventions.{_name}:{_class}")


@dataclass(frozen=True)
class Variant:
    """One row of the leaderboard.

    Attributes:
        name: unique in the run; further random draws are called random_experts_2, random_experts_3, ...
        spec: how it is made.
        draw: which random draw, counted from 0.
    """

    name: str
    spec: Intervention
    draw: int = 0

    def record(self) -> dict[str, Any]:
        """Return the whole specification, as run.json keeps it; `draw` is null where nothing is drawn."""
        draw = self.draw if self.spec.is_drawn else None
        absent = {name for name in ("published", "left_out") if not getattr(self.spec, name)}
        return {**self.spec.model_dump(mode="json", exclude=absent), **self.spec.content(), "draw": draw}


@dataclass(frozen=True)
class Prepared:
    """A variant with the selection and delta that were made for it.

    Attributes:
        variant: which variant.
        selection: the experts that it acts on.
        delta: the trained experts.
        training: fingerprint of their training.
        trained_in: folder of the trained adapter.
        identify: the tokens of the identify prompts by kind, harmful and benign, where the kind needs them.
        lacks_experts: why no experts were found for it, where its own selection left none.
    """

    variant: Variant
    selection: ExpertSelection | None = None
    delta: ExpertDelta | None = None
    training: str | None = None
    trained_in: Path | None = None
    identify: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    lacks_experts: str | None = None

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.variant.name

    @property
    def intervention(self) -> Intervention:
        """How the variant is made."""
        return self.variant.spec

    @property
    def system_prompt(self) -> str | None:
        """The system prompt that it answers under."""
        return self.intervention.system_message()

    @property
    def fingerprint(self) -> str:
        """Changes with everything that the variant does to the model or to its prompts."""
        experts = None if self.selection is None else sorted(self.selection.experts)
        made = [self.intervention.fingerprint(), self.variant.draw, experts, self.training]
        return fingerprint([*made, self.identify] if self.identify else made)


@dataclass(frozen=True)
class Served:
    """How an engine that loads weights by itself becomes a variant; without either it serves the base model.

    Attributes:
        delta: values that are merged into the checkpoint that it loads.
        masked: experts, by layer, that no token may be routed to.
    """

    delta: ExpertDelta | None = None
    masked: Mapping[int, Sequence[int]] = field(default_factory=dict)
