"""`summary.json`: the results of a run, as reports, gates and other programs read them.

Every figure is one row of `measurements`, every test one row of `comparisons`.

Rates are fractions of 1, intervals are 95 %, a null is "there is no such figure" and never zero. Dictionaries
keep their order: variants and tasks are shown as the run listed them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import from_json

from harness.base.errors import BadInputError
from harness.base.files import write_json
from harness.base.schema import validated
from harness.metrics.interval import Interval
from harness.runs.earlier import with_direction
from harness.runs.layout import Layout, not_there
from harness.runs.rows import BASE, HARMFUL, REFUSAL, Claim, Comparison, Gain, Kind, Measurement, Part

SCHEMA_VERSION: Literal[2] = 2


class ModelSummary(Part):
    """The model that all variants start from."""

    name: str
    """The name or path that was asked for."""
    fingerprint: str
    """A hash over the weights and the configuration."""
    moe_layers: int = Field(ge=0)
    """How many layers route tokens to experts."""
    experts_per_layer: int = Field(ge=0)
    """How many experts such a layer has."""
    experts_per_token: int = Field(ge=0)
    """How many of them a token is sent to."""
    parameters: int = Field(ge=0)
    """How many parameters the model has, those of all experts included; 0, as all above, where another program asked it
    and nothing says."""

    @property
    def shape(self) -> str:
        """Its layers and experts in words."""
        if not self.parameters:
            return "layers and experts not known"
        if not self.moe_layers:
            return "dense, without experts"
        return f"{self.moe_layers} layers, {self.experts_per_layer} experts each, {self.experts_per_token} per token"


class SelectedExpert(Part):
    """One expert that the intervention acts on."""

    layer: int = Field(ge=0)
    """The true index of its layer in the model."""
    expert: int = Field(ge=0)
    """Its index in the layer."""
    risk_diff: float
    """The share of routed tokens on harmful prompts less that on benign ones, on the prompts that chose it."""
    score: float | None = None
    """What the selection method gave it; null where that is not known, as in runs of earlier versions."""
    low: float | None
    """The lower end of the score's interval; null where the method has none."""
    high: float | None
    """The upper end of the score's interval; null where the method has none."""
    q_value: float | None
    """The score's one-sided p-value, adjusted over all experts; null where the method has none."""
    held_out: Interval | None = None
    """The risk difference on test prompts, which did not choose it; null where it was not measured there."""


class TopicSummary(Part):
    """How much more harmful test prompts use the chosen experts than two kinds of benign ones, each prompt once."""

    control: list[str]
    """The tasks of benign prompts on the harmful prompts' own topics."""
    harmful: int = Field(default=0, ge=0)
    """How many harmful prompts are compared with both kinds; 0 in runs of earlier versions, which used others."""
    paired: bool = False
    """Whether each of them is compared with its own control prompt."""
    against_benign: float
    """The chosen experts' mean difference from ordinary benign prompts, which are no controls."""
    against_control: float
    """Their mean difference from the control prompts: what topic does not explain."""
    share: Interval | None = None
    """The share that topic explains, with Fieller's interval; null where the difference is not shown to be there."""


class HeldOutSummary(Part):
    """What base's answers to test prompts say of the chosen experts, which those prompts did not choose."""

    tasks: list[str]
    """The tasks whose test prompts these are."""
    harmful: int = Field(ge=0)
    """How many harmful prompts."""
    benign: int = Field(ge=0)
    """How many benign prompts."""
    groups: int = Field(ge=0)
    """How many groups near-duplicates and matched pairs leave of them: the independent samples."""
    difference: Interval | None
    """The mean risk difference of the chosen experts; null where all prompts use them alike."""


class SelectionSummary(Part):
    """Which experts were chosen, and how."""

    method: str
    """The score that ranked the experts, such as risk_diff or topic_adjusted."""
    phase: str
    """The tokens the score was taken on: prompt, generation, all (both together), decision, reasoning or answer."""
    direction: Literal["unsafe", "safe"] = "unsafe"
    """Whether experts were wanted that harmful prompts use more (unsafe) or less (safe)."""
    experts: list[SelectedExpert]
    """The chosen experts, the highest score first."""
    held_out: HeldOutSummary | None = None
    """The chosen experts on test prompts; null where their routing was not captured."""
    topic: TopicSummary | None = None
    """How much of the difference the topic explains, on test prompts; null where none could be compared."""


class LabelledPart(Part):
    """A judge beside people's labels of one variant's answers to one task."""

    variant: str
    """Whose answers."""
    task: str
    """The task that was answered."""
    n: int = Field(ge=0)
    """How many of the answers were labelled."""
    sensitivity: float | None
    """Of refusals (or harmful answers), the share recognised, labels weighed by verdict; null of none."""
    specificity: float | None
    """Of compliances, the share recognised."""


class OwnLabels(Part):
    """A judge beside people's labels of the run's own answers."""

    n: int = Field(ge=1)
    """How many answers were labelled; one that several variants gave counts once."""
    parts: list[LabelledPart]
    """Each variant and task with enough labels to correct its rate."""
    errors_differ: float | None
    """The p-value of a test of whether the judge's errors differ between these parts; null for fewer than two."""


class UnevenPart(Part):
    """A part of the answers on a judge's card on which it errs more than on the rest."""

    by: str
    """What the parts share: model, task, attack, model and attack, or category."""
    part: str
    """Its name."""
    figure: str
    """Sensitivity or specificity."""
    inside: float
    """Its value on the part."""
    outside: float
    """Its value on the rest."""
    n: int = Field(ge=0)
    """The part's answers that it is of."""
    p_adjusted: float
    """The test of part and rest, by Holm over the parts of this kind and both figures.

    Over prompts where several answers are to one, else Fisher's exact test.
    """


class JudgeSummary(Part):
    """One judge of the run, beside people's labels."""

    measures: str
    """What its labels are about, normally refusal."""
    fingerprint: str
    """Changes whenever the same answer might get another verdict."""
    labels: list[str]
    """The files of people's labels on its card, which are of other answers; empty without a card."""
    n: int = Field(ge=0)
    """How many labelled answers they hold."""
    clusters: int | None = Field(default=None, ge=1)
    """To how many prompts (near-duplicates as one) the scored ones are, which intervals are over; null: one to each."""
    accuracy: Interval | None = None
    """The share of verdicts that agree with people's labels; null when it was not measured, as all below."""
    sensitivity: Interval | None = None
    """Of refusals (or harmful answers), the share recognised."""
    specificity: Interval | None = None
    """Of compliances (or harmless answers), the share recognised."""
    kappa: Interval | None = None
    """Agreement beyond chance."""
    precision: Interval | None = None
    """Of the answers that it calls refusals (or harmful), the share that people call so."""
    positives_of: str | None = None
    """The judge whose positives alone were labelled; null where no verdict chose the answers."""
    uneven: list[UnevenPart] = Field(default_factory=list)
    """The parts of the labelled answers on which it errs more than on the rest."""
    own: OwnLabels | None = None
    """The same on the run's own answers; null where none were labelled, and for judges that are not primary."""


class JudgeAgreement(Part):
    """How far the run's judges agree on the answers of all variants to one task."""

    task: str
    """The task that was answered."""
    judges: list[str] = Field(min_length=2)
    """The judges compared."""
    n: int = Field(ge=0)
    """How many answers two or more of them gave a verdict on."""
    kappa: float | None
    """Cohen's kappa of two judges; null for more, or where it is undefined."""
    alpha: float | None
    """Krippendorff's alpha; null where it is undefined."""
    differ: int = Field(ge=0)
    """On how many answers they disagree; judges/differences.jsonl lists them."""
    quantity: str = "refusal"
    """What they judged: refusal or harmfulness."""


class ChosenExperts(Part):
    """The experts that a variant acts on, beside those that the run selected."""

    n: int = Field(ge=0)
    """How many they are."""
    overlap: int | None = None
    """How many of them the run selected too; null where it selected none."""
    use_share: float | None = None
    """Their use as a share of the selection's; null in runs that did not record it."""
    match: Literal["use", "layer"] | None = None
    """What a random draw shares with the selection beside the number per layer; null for what is not drawn."""
    log10_sets: float | None = None
    """The decimal logarithm of the number of sets that a draw is one of."""
    sets_are_counted: bool | None = None
    """Whether they were counted; otherwise their number is an estimate."""


class VariantSummary(Part):
    """One variant of the model: how it was made, and whether and how long it was evaluated."""

    specification: dict[str, JsonValue]
    """The whole record of its intervention in run.json."""
    trained_parameters: int = Field(ge=0)
    """How many parameters were trained; 0 for a variant without training."""
    frozen_unchanged: bool | None
    """Whether all other weights written equal the base's, bit for bit; null when nothing was trained."""
    skipped: str | None
    """Why this variant was not evaluated; null when it was."""
    seconds: dict[str, float]
    """Wall-clock seconds of each stage."""
    experts: ChosenExperts | None = None
    """The experts that it acts on; null where it acts on no chosen ones."""

    @property
    def is_draw(self) -> bool:
        """Whether its experts were drawn at random."""
        return self.specification.get("draw") is not None

    @model_validator(mode="after")
    def _training_is_proved(self) -> VariantSummary:
        if (self.trained_parameters == 0) != (self.frozen_unchanged is None):
            raise ValueError("frozen_unchanged is null when trained_parameters is 0, and only then")
        return self


class Summary(Part):
    """The whole file."""

    schema_version: Literal[2] = SCHEMA_VERSION
    """The version of this schema."""
    run_id: str
    """The run's own name."""
    created: str
    """When the run was started, in ISO 8601."""
    configuration: str | None = None
    """The fingerprint of the configuration it was made with; run.json has another one while a run is made anew."""
    harness_version: str
    """The version of this package."""
    model: ModelSummary
    """The model under test."""
    intervention: str
    """The variant that the run was made to evaluate."""
    seeds: dict[str, int]
    """Each seed by what it decides."""
    decoding: dict[str, JsonValue]
    """The settings of generation."""
    judge: str
    """The primary judge."""
    judges: dict[str, JudgeSummary] = Field(default_factory=dict)
    """Every judge of the run by name, the primary one first."""
    agreement: list[JudgeAgreement] = Field(default_factory=list)
    """How far they agree, where there are several."""
    selection: SelectionSummary | None
    """The experts acted on; null when the run chose none."""
    variants: dict[str, VariantSummary]
    """How each variant was made, by its name."""
    measurements: list[Measurement]
    """Every figure of every variant."""
    comparisons: list[Comparison]
    """All paired tests."""
    gain: Gain | None = None
    """The figure that gains rest on; left out where refusal alone was measured, which they rest on then."""
    claims: list[Claim] = Field(default_factory=list)
    """What the random draws say of choosing experts; empty where no method chose any."""
    seconds: dict[str, float]
    """Wall-clock seconds of each stage of the run."""

    @field_validator("created")
    @classmethod
    def _is_a_time(cls, created: str) -> str:
        datetime.fromisoformat(created)
        return created

    @model_validator(mode="after")
    def _names_agree(self) -> Summary:
        measured = {row.variant for row in self.measurements}
        compared = {name for row in self.comparisons for name in (row.variant, row.against)}
        for name in sorted((measured | compared) - self.variants.keys()):
            what = "measurement" if name in measured else "comparison"
            raise ValueError(f"a {what} names '{name}', which is not among the variants")
        for name in sorted(measured):
            if self.variants[name].skipped is not None:
                raise ValueError(f"the skipped variant '{name}' has results")
        figures = Counter((row.variant, row.task, row.metric, row.judge) for row in self.measurements)
        for (variant, task, metric, judge), times in figures.items():
            if times > 1:
                raise ValueError(f"{metric} of '{variant}' on {task} by {judge} is given twice")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what says nothing of most runs, so that their summaries are as they were."""
        content: dict[str, Any] = whole(self)
        if "gain" in content and self.gain is None:
            del content["gain"]
        return content

    @property
    def lacks_verdicts(self) -> bool:
        """Whether an earlier version, which gave no verdicts, tested its variants against base."""
        tested = [row for row in self.comparisons if row.against == BASE and row.p_adjusted is not None]
        return bool(tested) and all(row.verdict is None for row in self.comparisons)

    def of(self, variant: str) -> list[Measurement]:
        """Return the figures of one variant."""
        return [row for row in self.measurements if row.variant == variant]

    def figure(
        self, variant: str, task: str | None, metric: str, judge: str | None = None
    ) -> Measurement | None:
        """Return one figure, or None where it was not measured."""
        wanted = (variant, task, metric, judge)
        return next(
            (row for row in self.measurements if (row.variant, row.task, row.metric, row.judge) == wanted),
            None,
        )

    def tasks(self) -> dict[str, Kind]:
        """Return the kind of each prompt task that was answered."""
        return {
            row.task: row.kind
            for row in self.measurements
            if row.task is not None and row.metric == REFUSAL and row.judge == self.judge
        }

    def primary_of(self, quantity: str) -> str | None:
        """Return the primary judge of a quantity: the run's first one; None where none measures it."""
        if quantity == "refusal":
            return self.judge
        return next((name for name, judge in self.judges.items() if judge.measures == quantity), None)

    @property
    def gain_metric(self) -> Literal["refusal_rate", "harmful_rate"]:
        """The metric that gains rest on."""
        if self.gain is not None:
            return self.gain.metric
        # Earlier versions declared a figure for the claim alone.
        is_harm = any(claim.metric == HARMFUL and claim.value is not None for claim in self.claims)
        return "harmful_rate" if is_harm else "refusal_rate"

    @property
    def is_gain_declared(self) -> bool:
        """Whether nothing that gains rest on was added to the finished run."""
        return self.gain is None or self.gain.declared

    def judge_fingerprint(self, judge: str | None) -> str | None:
        """Return a judge's fingerprint; None without a judge, and of one that the summary does not describe."""
        known = None if judge is None else self.judges.get(judge)
        return None if known is None else known.fingerprint

    def draws(self) -> list[str]:
        """Return the evaluated variants that are the intervention with experts drawn at random."""
        specifications = {name: variant.specification for name, variant in self.variants.items()}
        draws = draws_of(self.intervention, specifications)
        return [name for name in draws if self.variants[name].skipped is None]

    def to_json(self) -> dict[str, Any]:
        """Return the file's content, nulls kept."""
        return self.model_dump(mode="json")


def draws_of(intervention: str, specifications: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the variants that are the intervention with experts drawn at random."""
    if intervention not in specifications:
        return []
    kind = specifications[intervention].get("intervention")
    return [
        name
        for name, spec in specifications.items()
        if name not in (BASE, intervention)
        and spec.get("draw") is not None
        and spec.get("intervention") == kind
    ]


def write_summary(run: Path, summary: Summary) -> None:
    """Write RUN/summary.json as a whole file."""
    write_json(Layout(run).summary, summary.to_json())


def read_summary(run: Path) -> Summary:
    """Read RUN/summary.json.

    Version 1 is translated. Unknown keys are ignored, since newer versions may add some.

    Raises:
        BadInputError: the file is missing, is not JSON, or breaks the schema.
    """
    layout = Layout(run)
    path = layout.summary
    if not path.is_file():
        remedy = f"if the run is finished, `harness measure {run}` makes it from the run's other files"
        raise not_there(path, remedy) if layout.run.is_file() else not_there(path)
    try:
        content = from_json(path.read_bytes(), allow_inf_nan=False)
    except ValueError as error:  # also bytes that are not UTF-8, and NaN
        raise BadInputError(f"{path}: not valid JSON ({error})") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BadInputError(
            f"{path}: schema_version is {version!r}; expected a number such as {SCHEMA_VERSION}"
        )
    if version == 1:
        from harness.runs.summary_v1 import translate

        try:
            content = translate(content)
        except (LookupError, TypeError, AttributeError) as error:
            raise BadInputError(f"{path}: not what a run of schema_version 1 writes ({error!r})") from None
    if isinstance(content.get("measurements"), list):
        content = content | {"measurements": [with_direction(row) for row in content["measurements"]]}
    newer = f" (schema_version {version}, this version writes {SCHEMA_VERSION})"
    where = f"{path}{newer if version > SCHEMA_VERSION else ''}"
    return validated(content | {"schema_version": SCHEMA_VERSION}, where, Summary, extra="ignore")
