"""The content of the small files of a run folder; reading ignores unknown fields."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.capability.results import CapabilityResult
from harness.capability.saved import Origin
from harness.data.conversation import Turns
from harness.experts.select import ALL, LEAST_USED
from harness.judges.base import Quantity
from harness.judges.labels import LABELS, HumanLabel
from harness.metrics.carry import Half
from harness.metrics.rates import AnyLabel
from harness.metrics.route_drift import RouteDrift
from harness.runs.integrity import FileRecord


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelRecord(_Record):
    """The model that all variants start from."""

    name: str
    """As it was asked for."""
    path: str
    """The folder that it was read from; it may be gone."""
    fingerprint: str = ""
    """A hash over the weights and the configuration."""
    moe_layers: int | None = None
    """How many layers route tokens to experts; None, as all below, in runs that did not record it."""
    experts_per_layer: int | None = None
    """How many experts such a layer has."""
    experts_per_token: int | None = None
    """How many of them a token is sent to."""
    parameters: int | None = None
    """How many parameters the model has, those of all experts included."""
    set_aside: dict[str, Any] = Field(default_factory=dict)
    """Generation settings of the checkpoint that were not followed, with their values."""
    followed: dict[str, Any] = Field(default_factory=dict)
    """Those that were."""
    reads_clock: bool = False
    """Whether its chat template may write the date or the time."""


class AskedRecord(_Record):
    """How the test prompts of a task were asked."""

    kind: Literal["harmful", "benign"]
    max_new_tokens: int
    """The longest answer."""
    opening: str = ""
    """The given beginning of the answer; empty unless the start is forced."""


class ThinkingRecord(_Record):
    """What was asked of a model that may think."""

    state: str = "none"
    """off, on, always (it cannot be switched off), or none where the chat template knows of no thinking."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What the chat template was given for it."""
    reasoning_tokens: int | None = None
    """Within how many tokens an answer had to begin, apart from its own; None where the model did not think."""


class JudgeRecord(_Record):
    """A judge that gave verdicts on the run's answers."""

    measures: Quantity
    """The quantity that its labels are about: refusal or harmfulness."""
    fingerprint: str
    """Changes whenever the same answer might get another verdict."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """How it judges; of a judge with a file, all of that."""

    @property
    def also(self) -> tuple[str, ...]:
        """The judges that are always named with it."""
        return tuple(self.settings.get("preset", self.settings).get("also", ()))


class SamplingRecord(_Record):
    """How answers to test prompts were sampled."""

    answers: int
    """Of each prompt."""
    temperature: float
    top_p: float
    seed: int
    """With it, a prompt's id and an answer's number give the seed of an answer."""
    not_seeded: str | None = None
    """Why answers had no seed of their own; None where they had one, the same for every variant."""


class EvaluatedRecord(_Record):
    """How a variant's evaluation ended."""

    trained: bool
    """Whether its experts were trained."""
    skipped: str | None
    """Why it was not evaluated; None if it was."""
    tasks: list[str] | None = None
    """The tasks that it answered; None where these are all of the run's."""


class DeltaRecord(_Record):
    """delta.json, as far as figures need it."""

    parameters: int
    """How many parameters were trained."""


class PhrasingsRecord(_Record):
    """training/phrasings.json: phrasings of refusal, with {topic} in place of what a request is about."""

    trained: list[str]
    """Those that variants were trained on."""
    held_out: list[str]
    """Those that no variant was trained on."""


class TaskRecord(_Record):
    """A prompt task of the run."""

    name: str
    version: int | str
    kind: Literal["harmful", "benign"]


class StageRecord(_Record):
    """One stage of the run."""

    fingerprint: str
    """Of everything that can change what the stage writes."""
    state: str
    """done or started."""
    seconds: float
    """Wall-clock seconds over all tries; 0 for a stage copied from another run."""
    files: dict[str, FileRecord] = Field(default_factory=dict)
    """The files it wrote, by their names in the folder; empty in runs that did not record them."""


class RunRecord(_Record):
    """run.json. A part that is missing, as in a run that was only begun, is empty."""

    run_id: str | None = None
    created: str | None = None
    """When the run was started, in ISO 8601."""
    command: str | list[str] | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    """Every setting."""
    configuration: str | None = None
    """The fingerprint of settings, model, tasks, variants, judge and versions; None in runs that recorded none."""
    model: ModelRecord | None = None
    tasks: list[TaskRecord] = Field(default_factory=list)
    seeds: dict[str, int] = Field(default_factory=dict)
    """Each seed by what it decides."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the packages that can change a result."""
    device: str | None = None
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Each variant's whole specification by its name; empty in runs that recorded none."""
    asked: dict[str, AskedRecord] = Field(default_factory=dict)
    """How each task was asked, forced starts apart from free ones; empty in runs that recorded none, as all below."""
    groups: dict[str, list[str]] = Field(default_factory=dict)
    """The tasks of each group that the run was asked for by name."""
    thinking: ThinkingRecord = ThinkingRecord()
    """What was asked of a model that may think."""
    spelling_control_tokens: dict[str, int] = Field(default_factory=dict)
    """How many prompts of a task spell a control token; they were read as text."""
    clock: str | None = None
    """The time that chat templates read."""
    engine: str | None = None
    """What generated the answers."""
    sampling: SamplingRecord | None = None
    """How answers to test prompts were sampled; None where each prompt got one greedy answer."""
    control_tasks: list[str] = Field(default_factory=list)
    """The benign tasks on the harmful prompts' own topics."""
    claim_prompts: dict[str, list[str]] = Field(default_factory=dict)
    """The ids of the harmful test prompts that a claim is tested on, by task; empty in runs that declared none."""
    judges: dict[str, JudgeRecord] = Field(default_factory=dict)
    """The judges that gave verdicts, the primary one first."""
    evaluated: dict[str, EvaluatedRecord] = Field(default_factory=dict)
    """The variants whose evaluation has ended."""
    more_judges: list[str] = Field(default_factory=list)
    """Judges that were added after the run."""
    stages: dict[str, StageRecord] = Field(default_factory=dict)
    """By name, in the order they were first begun."""

    @property
    def intervention(self) -> str | None:
        """The variant that the run was made to evaluate."""
        return self.config.get("intervention")

    @property
    def judge(self) -> str | None:
        """The primary judge."""
        return next(iter(self.judges), self.config.get("judge"))


class SplitTask(_Record):
    """The prompts of one task, by their ids."""

    fingerprint: str = ""
    """Of all prompts of the task."""
    ids: dict[str, list[str]] = Field(default_factory=dict)
    """By role: identify, train, test."""
    categories: dict[str, str] = Field(default_factory=dict)
    """What each test prompt is about, by id, where its data set says."""
    tags: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The tags of each test prompt, by id, where its data set has any."""
    pairs: dict[str, str] = Field(default_factory=dict)
    """A key of each test prompt in a matched pair, by id; equal for matched prompts of linked tasks."""


class SplitsRecord(_Record):
    """splits.json."""

    tasks: dict[str, SplitTask]


class Selection(_Record):
    """selection.json: the experts that a variant acts on."""

    experts: tuple[tuple[int, int], ...]
    """(layer, expert) pairs."""
    phase: str | None = None
    """The tokens they were scored on."""
    method: str | None = None
    """How they were chosen."""
    overlap_with_selection: int | None = None
    """How many of them the run's selection has too."""
    use_share: float | None = None
    """Their use as a share of the selection's: of routed tokens on safe prompts plus that on unsafe ones, summed."""
    match: Literal["use", "layer"] | None = None
    """What a random draw shares with the selection beside the number per layer; None for what is not drawn."""
    log10_sets: float | None = None
    """The decimal logarithm of the number of sets that it is one of."""
    sets_are_counted: bool | None = None
    """Whether they were counted; otherwise their number is an estimate."""

    @property
    def is_choice(self) -> bool:
        """Whether a score told them from other experts: all experts and pruned ones are no choice."""
        return self.method not in (ALL, LEAST_USED)


class TrainingStep(_Record):
    """One row of train.jsonl."""

    step: int
    loss: float


class Proof(_Record):
    """proof.json."""

    model_config = ConfigDict(frozen=True, strict=True)

    frozen_unchanged: bool
    """Whether all weights but the trained experts' equal the base's, bit for bit."""
    violations: list[str]
    """The weights that differ."""
    tensors_compared: int | None = None
    """How many tensors were compared; None in runs that did not record it."""


class ImportedRecord(_Record):
    """capability.imported.json: figures of lm-eval that were measured elsewhere."""

    tasks: dict[str, CapabilityResult] = Field(default_factory=dict)
    origins: dict[str, Origin] = Field(default_factory=dict)
    """Where each task's figure is from."""

    def only(self, tasks: Collection[str]) -> ImportedRecord:
        """Return what it has of some tasks."""
        return ImportedRecord(
            tasks={task: result for task, result in self.tasks.items() if task in tasks},
            origins={task: origin for task, origin in self.origins.items() if task in tasks},
        )


class RoutesRecord(_Record):
    """routes.json: how far a variant's routes are from base's on the same tokens."""

    not_compared: str | None = None
    """Why nothing was compared; None where figures are."""
    figures: list[RouteDrift] = Field(default_factory=list)
    """By kind of prompt, phase and layer."""

    def overall(self, kind: str, phase: str) -> RouteDrift | None:
        """Return the figure over all layers."""
        rows = (row for row in self.figures if (row.kind, row.phase, row.layer) == (kind, phase, None))
        return next(rows, None)


class Carried(_Record):
    """A rate at one step, with its interval over prompts; null where nothing was scored."""

    value: float | None
    low: float | None
    high: float | None
    scored: int
    unscored: int


class CarryStep(_Record):
    """Rates with so many experts put back to base; over several orders, those of all their answers."""

    put_back: int
    harmful: Carried
    """Refusal."""
    benign: Carried
    """False refusal."""


class CarryRecord(_Record):
    """carry.json: refusal while a variant's trained experts are put back to base one after another."""

    answers_key: str
    """Fingerprint of everything that can change an answer."""
    judge: str
    seed: int
    """Of the random orders, the prompts and the resamples."""
    prompts: list[str]
    """Those asked at each step, as TASK/ID."""
    experts: int
    """How many were trained."""
    orders: list[list[tuple[int, int]]]
    """The order by rank, then random ones."""
    by_rank: list[CarryStep]
    random: list[CarryStep]
    each: list[list[float | None]]
    """Refusal at each step of each random order."""
    half_of_each: list[float | None]
    """How many put back in each random order take half of the effect; null without an effect."""
    half_by_rank: Half | None
    """How many put back by rank take half of the effect; null without an effect."""
    half_at_random: Half | None
    """The mean over random orders."""


class ColouredTokens(_Record):
    """One prompt and its answer in routing/token_shares.json, token by token."""

    task: str
    kind: Literal["harmful", "benign"]
    id: str
    prompt_tokens: int
    texts: list[str]
    shares: list[float]


class TrainingExample(_Record):
    """One row of training/examples.jsonl."""

    task: str
    id: str
    prompt: str
    """Of a conversation its transcript."""
    answer: str
    aim: str
    messages: Turns = ()
    """The turns of a conversation; empty where the user's message is all."""


class Stratum(_Record):
    """One place that a labelled answer was drawn for."""

    variant: str
    """Whose answer it is; several variants may have given it."""
    prompt: str
    """Its id: the prompt's, with # and its number where the prompt has several answers."""
    verdict: AnyLabel
    """The judge's."""
    probability: float = Field(gt=0, le=1)
    """How likely it was to be drawn, among the variant's answers to the task with this verdict."""


class OwnLabel(_Record):
    """One row of judges/labels.jsonl (or labels.harmfulness.jsonl): an answer and what a person called it."""

    id: str
    task: str
    prompt: str
    response: str
    judge: str
    """The judge by whose verdicts answers were drawn."""
    fingerprint: str
    """The judge's."""
    seed: int
    """Of the draw."""
    per_verdict: int = Field(ge=1)
    """How many answers of each variant, task and verdict were to be drawn."""
    drawn: list[Stratum] = Field(min_length=1)
    """What it was drawn for: its label counts in each."""
    label: HumanLabel
    quantity: Quantity = "refusal"
    """What was asked of the person."""

    @property
    def is_positive(self) -> bool:
        """Whether it counts as a refusal, as a partial one does, or as harmful."""
        return self.label not in ("compliance", "harmless")

    @model_validator(mode="after")
    def _fits(self) -> OwnLabel:
        if self.label not in LABELS[self.quantity]:
            raise ValueError(f"label: '{self.label}' is no label of {self.quantity}")
        return self
