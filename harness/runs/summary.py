"""`summary.json`: what a run found, as reports, gates and other programs read it.

Rates are fractions of 1, intervals are 95 %, a null is "there is no such figure" and never zero. Dictionaries
keep their order: variants and tasks are shown as the run listed them.
"""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    field_validator,
    model_validator,
)

from harness.base.errors import BadInputError
from harness.base.files import write_json

SCHEMA_VERSION: Literal[1] = 1
FILE_NAME = "summary.json"

# Wilson's bounds at a rate of 0 or 1 may miss it by rounding.
_ROUNDING = 1e-9


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Interval(_Part):
    """A figure with its 95 % interval."""

    value: float
    """The estimate."""
    low: float
    """The lower end."""
    high: float
    """The upper end."""


class ModelSummary(_Part):
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
    """How many parameters the model has, those of all experts included."""


class SelectedExpert(_Part):
    """One expert that the intervention acts on."""

    layer: int = Field(ge=0)
    """The true index of its layer in the model."""
    expert: int = Field(ge=0)
    """Its index in the layer."""
    risk_diff: float
    """The share of routed tokens on harmful prompts less that on benign ones."""
    low: float | None
    """The lower end of the risk difference's interval; null when none was computed."""
    high: float | None
    """The upper end of the risk difference's interval; null when none was computed."""
    q_value: float | None
    """The p-value of the difference, adjusted over all experts; null when none was computed."""


class TopicSummary(_Part):
    """How much more harmful prompts use the chosen experts than two kinds of benign ones; each prompt counts once."""

    control: list[str]
    """The tasks of benign prompts on the harmful prompts' own topics."""
    against_benign: float
    """The chosen experts' mean difference from all benign prompts."""
    against_control: float
    """Their mean difference from the control prompts: what topic does not explain."""


class SelectionSummary(_Part):
    """Which experts were chosen, and how."""

    method: str
    """The name of the rule, such as top_k or threshold."""
    phase: str
    """The tokens the score was taken on: prompt, generation, or both together."""
    experts: list[SelectedExpert]
    """The chosen experts, the riskiest first."""
    topic: TopicSummary | None = None
    """How much of the difference is topic; null where no control prompts were compared."""


class TaskResult(_Part):
    """How often one variant refused the prompts of one task, by the primary judge."""

    kind: Literal["harmful", "benign"]
    """Whether a refusal is what is wanted (harmful) or a false refusal (benign)."""
    metric: str
    """The name of the rate, normally refusal_rate."""
    value: float | None
    """The rate over scored answers; null when none was scored."""
    low: float | None
    """The lower end of its interval; null when none was scored."""
    high: float | None
    """The upper end of its interval; null when none was scored."""
    n: int = Field(ge=0)
    """How many prompts were asked."""
    scored: int = Field(ge=0)
    """How many answers the judge gave a verdict on."""
    unscored: int = Field(ge=0)
    """How many answers it could not judge."""
    truncated: int = Field(ge=0)
    """How many answers were cut by the token limit; they are judged by what they say."""
    judge: str
    """The judge whose verdicts these are."""

    @model_validator(mode="after")
    def _adds_up(self) -> TaskResult:
        if self.scored + self.unscored != self.n:
            raise ValueError(f"scored {self.scored} + unscored {self.unscored} is not n {self.n}")
        if self.truncated > self.n:
            raise ValueError(f"truncated {self.truncated} is more than n {self.n}")
        present = {figure is not None for figure in (self.value, self.low, self.high)}
        if present != {self.scored > 0}:
            raise ValueError("value, low and high are null when scored is 0, and only then")
        if self.value is not None and self.low is not None and self.high is not None:
            ends = (0.0, self.low, self.value, self.high, 1.0)
            if any(left > right + _ROUNDING for left, right in pairwise(ends)):
                raise ValueError(
                    f"0 <= low {self.low} <= value {self.value} <= high {self.high} <= 1 is broken"
                )
        return self


class Clustered(_Part):
    """A figure again, over groups of near-duplicate prompts as the independent units."""

    low: float
    """The lower end of its interval."""
    high: float
    """The upper end of its interval."""
    groups: int = Field(ge=1)
    """How many groups."""
    p_value: float | None = None
    """Of a difference, not adjusted; null for a rate."""


class Measurement(_Part):
    """One rate of one variant, by any judge; the primary judge's are also under `tasks`."""

    task: str
    """The task that was answered."""
    metric: str
    """The name of the rate."""
    judge: str
    """The judge whose verdicts these are."""
    value: float | None
    """The rate; null when nothing was scored."""
    low: float | None
    """The lower end of its interval; null when nothing was scored."""
    high: float | None
    """The upper end of its interval; null when nothing was scored."""
    corrected: Interval | None = None
    """The rate corrected for the judge's own known errors; null when it was not corrected."""
    not_corrected: str | None = None
    """Why it was not corrected; null when it was, and for figures that are no rate of a judge's."""
    unscored_range: tuple[float, float] | None = Field(default=None, strict=False)
    """The rate over all prompts with every unscored answer counted as compliance, then as refusal."""
    clustered: Clustered | None = None
    """Its interval over groups of near-duplicates; null where no prompt of the task repeats another."""
    n: int = Field(ge=0)
    """How many prompts were asked."""
    scored: int = Field(ge=0)
    """How many answers the judge gave a verdict on."""


class JudgeSummary(_Part):
    """One judge of the run, beside people's labels."""

    measures: str
    """What its labels are about, normally refusal."""
    fingerprint: str
    """Changes whenever the same answer might get another verdict."""
    labels: list[str]
    """The files of people's labels that it was compared with; empty when it never was."""
    n: int = Field(ge=0)
    """How many labelled answers they hold."""
    accuracy: Interval | None = None
    """The share of verdicts that are people's; null when it was not measured, as all below."""
    sensitivity: Interval | None = None
    """Of refusals, the share recognised."""
    specificity: Interval | None = None
    """Of compliances, the share recognised."""
    kappa: Interval | None = None
    """Agreement beyond chance."""


class JudgeAgreement(_Part):
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
    """On how many answers they do not all say the same; judges/differences.jsonl lists them."""


class CapabilityResult(_Part):
    """How well one variant does an ordinary task, by lm-eval."""

    metric: str
    """The name of lm-eval's metric, such as acc."""
    value: float | None
    """Its value; null when lm-eval gave none."""
    stderr: float | None
    """Its standard error as lm-eval reports it; null when it gives none."""
    low: float | None
    """The lower end of its interval; null when none could be computed."""
    high: float | None
    """The upper end of its interval; null when none could be computed."""
    n: int = Field(ge=0)
    """How many questions were asked."""
    unparsed: int | None = Field(ge=0)
    """How many answers held no readable choice (they count as wrong); null where that cannot happen."""


class Drift(_Part):
    """How far a variant is from base on base's own answers to benign test prompts."""

    perplexity: float = Field(ge=1)
    """Of those answers, to the variant."""
    kl: float
    """KL(base || variant) in nats for each token; 0 for base itself."""
    low: float | None
    """The lower end of its interval over answers."""
    high: float | None
    """The upper end of its interval over answers."""
    answers: int = Field(ge=0)
    """How many answers."""
    tokens: int = Field(ge=0)
    """Tokens of them all."""


class VariantSummary(_Part):
    """What was measured of one variant of the model."""

    tasks: dict[str, TaskResult]
    """The primary judge's rate of each prompt task."""
    measurements: list[Measurement]
    """All rates by all judges."""
    capability: dict[str, CapabilityResult]
    """The result of each lm-eval task."""
    drift: Drift | None = None
    """How far it is from base on benign text; null where that was not measured."""
    trained_parameters: int = Field(ge=0)
    """How many parameters were trained; 0 for a variant without training."""
    frozen_unchanged: bool | None
    """Whether all other weights written equal the base's, bit for bit; null when nothing was trained."""
    skipped: str | None
    """Why this variant was not evaluated; null when it was."""
    seconds: dict[str, float]
    """Wall-clock seconds of each stage."""

    @model_validator(mode="after")
    def _training_is_proved(self) -> VariantSummary:
        if (self.trained_parameters == 0) != (self.frozen_unchanged is None):
            raise ValueError("frozen_unchanged is null when trained_parameters is 0, and only then")
        if self.skipped is not None and (self.tasks or self.capability):
            raise ValueError("a skipped variant has results")
        return self


class Comparison(_Part):
    """One paired test of two variants on the prompts of one task."""

    variant: str
    """The variant in question."""
    against: str
    """The variant it is compared with."""
    task: str
    """The prompt task or lm-eval task."""
    metric: str
    """The rate that is compared."""
    judge: str | None
    """The judge whose verdicts these are; null for a capability task."""
    difference: float | None
    """The rate of `variant` less that of `against`, over the pairs; null without pairs."""
    low: float | None
    """The lower end of the difference's interval."""
    high: float | None
    """The upper end of the difference's interval."""
    p_value: float | None
    """The test's p-value; null when there was nothing to test."""
    p_adjusted: float | None
    """The p-value adjusted within the family; null when there was nothing to test."""
    family: str
    """The comparisons it was adjusted together with."""
    test: str
    """The name of the test, such as mcnemar_exact."""
    n: int = Field(ge=0)
    """How many prompts both variants have a verdict on."""
    discordant: int | None = Field(ge=0)
    """How many of them the two variants differ on; null when the metric is not yes or no."""
    minimum_detectable: float | None
    """The smallest difference such a test finds in four of five runs; null when it was not computed."""
    clustered: Clustered | None = None
    """Interval and test over groups of near-duplicates; null where no prompt repeats another or no variance is seen."""


class Summary(_Part):
    """The whole file."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """The version of this schema."""
    run_id: str
    """The run's own name."""
    created: str
    """When the run was started, in ISO 8601."""
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
    """Each variant's results by its name."""
    comparisons: list[Comparison]
    """All paired tests."""
    seconds: dict[str, float]
    """Wall-clock seconds of each stage of the run."""

    @field_validator("created")
    @classmethod
    def _is_a_time(cls, created: str) -> str:
        datetime.fromisoformat(created)
        return created

    @model_validator(mode="after")
    def _names_agree(self) -> Summary:
        for row in self.comparisons:
            for name in (row.variant, row.against):
                if name not in self.variants:
                    raise ValueError(f"a comparison names '{name}', which is not among the variants")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the file's content, nulls kept."""
        return self.model_dump(mode="json")


def write_summary(run: Path, summary: Summary) -> None:
    """Write RUN/summary.json as a whole file."""
    write_json(run / FILE_NAME, summary.to_json())


def read_summary(run: Path) -> Summary:
    """Read RUN/summary.json.

    Raises:
        BadInputError: the file is missing, is not JSON, has another schema version or breaks the schema.
    """
    path = run / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file; expected the folder of a finished run") from None
    except NotADirectoryError:
        raise BadInputError(f"{run}: is a file; expected the folder of a finished run") from None
    except ValueError as error:  # also bytes that are not UTF-8, and NaN
        raise BadInputError(f"{path}: not valid JSON ({error})") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise BadInputError(f"{path}: schema_version is {version!r}; this version reads {SCHEMA_VERSION}")
    try:
        return Summary.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BadInputError(f"{path}: {field}: {first['msg']}{more}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
