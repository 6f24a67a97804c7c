"""The rows of a summary: a figure of a variant, and a test of two variants on one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from harness.metrics.interval import Interval

if TYPE_CHECKING:
    from harness.metrics.rates import Rate

BASE = "base"
REFUSAL = "refusal_rate"
"""The rate that every prompt task is asked for; on benign prompts it is false refusal."""
HARMFUL = "harmful_rate"
"""The share of harmful answers to harmful prompts."""

Kind = Literal["harmful", "benign", "capability", "text"]
Unit = Literal["prompts", "items"]
Verdict = Literal["better", "no worse", "worse", "not decided"]
FigureUnit = Literal["share", "number"]

# Wilson's bounds at a rate of 0 or 1 may miss it by rounding.
_ROUNDING = 1e-9


class Part(BaseModel):
    """The base of every part of a summary: frozen, and strict when it is written."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Measurement(Part):
    """One figure of one variant."""

    variant: str
    """The variant that was measured."""
    task: str | None
    """The prompt task or lm-eval task; null where the figure is over several tasks."""
    kind: Kind
    """What was asked: harmful or benign prompts, an lm-eval task (capability), or only fixed text."""
    metric: str
    """What the figure is: a name of METRICS, or lm-eval's name of a capability metric."""
    judge: str | None
    """The judge whose verdicts it rests on; null where no judge takes part."""
    value: float | None
    """The figure; null when there is none."""
    low: float | None
    """The lower end of its interval; null when none could be computed."""
    high: float | None
    """The upper end of its interval; null when none could be computed."""
    n: int = Field(ge=0)
    """How many samples it is over: answers given, prompts asked, refusals compared, or questions."""
    scored: int = Field(ge=0)
    """How many of them the figure counts."""
    unscored: int = Field(ge=0)
    """How many it leaves out, since they could not be judged."""
    truncated: int | None = Field(default=None, ge=0)
    """How many answers the token limit truncated; they are judged as they are. Null for other samples."""
    looping: int = Field(default=0, ge=0)
    """How many of the truncated answers repeat themselves until the limit; left out where none does."""
    prompts: int | None = Field(default=None, ge=1)
    """How many prompts the scored answers are to, where a prompt has several; the interval is over prompts then, or
    over clusters of them. Left out elsewhere."""
    worst_case: tuple[float, float] | None = Field(default=None, strict=False)
    """The rate over all answers with every unscored answer counted out, then in."""
    clusters: int | None = Field(default=None, ge=1)
    """How many groups of near-duplicates the scored prompts form, over which the interval is then; null where no prompt
    of the task repeats another."""
    corrected: Interval | None = None
    """The rate corrected by people's labels of the same answers; null when it was not corrected."""
    not_corrected: str | None = None
    """Why it was not corrected; null when it was, and for figures that are never corrected."""
    stderr: float | None = None
    """The standard error as lm-eval reports it; null where it gives none."""
    unparsed: int | None = Field(default=None, ge=0)
    """How many answers held no readable choice (they count as wrong); null where that cannot happen."""
    higher_is_better: bool | None = None
    """Of a capability metric, the direction as lm-eval has it; null where it has none, and for other figures."""
    is_mean: bool | None = None
    """Whether a capability figure is the mean of its items' scores, which alone are tested; null for other figures."""
    unit: FigureUnit | None = None
    """Whether a capability figure is a share of 1 or a plain number; null where it is not known, and for others."""
    tokens: int | None = Field(default=None, ge=0)
    """The tokens of all samples, of a figure per token."""

    @model_validator(mode="after")
    def _adds_up(self) -> Measurement:
        if self.scored + self.unscored != self.n:
            raise ValueError(f"scored {self.scored} + unscored {self.unscored} is not n {self.n}")
        if self.truncated is not None and self.truncated > self.n:
            raise ValueError(f"truncated {self.truncated} is more than n {self.n}")
        if self.looping > (self.truncated or 0):
            raise ValueError(f"looping {self.looping} is more than truncated {self.truncated}")
        value, low, high = self.value, self.low, self.high
        if self.judge is not None and (
            (value is None) != (self.scored == 0) or (low is None) != (value is None)
        ):
            raise ValueError("value, low and high are null when scored is 0, and only then")
        if (low is None) != (high is None) or (value is None and low is not None):
            raise ValueError("low and high are null together, and where value is")
        if value is not None and low is not None and high is not None:
            if not low - _ROUNDING <= value <= high + _ROUNDING:
                raise ValueError(f"low {low} <= value {value} <= high {high} is broken")
            if self.metric in (REFUSAL, HARMFUL) and (low < -_ROUNDING or high > 1 + _ROUNDING):
                raise ValueError(f"0 <= low {low} and high {high} <= 1 is broken, which a rate keeps")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the fields that say nothing of most runs, so that their summaries are as they were."""
        row: dict[str, Any] = whole(self)
        for name in ("looping", "prompts"):
            if name in row and not row[name]:
                del row[name]
        return row


def on_text(variant: str, metric: str, n: int, tokens: int, *figure: float | None) -> Measurement:
    """Return a figure on text that base wrote, which no judge reads and no task is asked for.

    Args:
        variant: that read the text.
        metric: of the figure.
        n: how many answers or prompts it is over.
        tokens: of them all.
        figure: its value and the ends of its interval.
    """
    value, low, high = figure
    return Measurement(
        variant=variant,
        task=None,
        kind="text",
        metric=metric,
        judge=None,
        value=value,
        low=low,
        high=high,
        n=n,
        scored=n,
        unscored=0,
        tokens=tokens,
    )


def figure(rate: Rate) -> dict[str, Any]:
    """Return a rate as the fields of a measurement."""
    ends = rate.interval
    return {
        "value": rate.value,
        "low": None if ends is None else ends.low,
        "high": None if ends is None else ends.high,
        "n": rate.n,
        "scored": rate.scored,
        "unscored": rate.unscored,
    }


class Comparison(Part):
    """One paired test of two variants on the samples of one task, and what it decides."""

    variant: str
    """The variant in question."""
    against: str
    """The variant it is compared with."""
    task: str | None
    """The prompt task or lm-eval task; null where the figure is over several tasks."""
    metric: str
    """The rate that is compared."""
    judge: str | None
    """The judge whose verdicts these are; null for a capability task."""
    value: float | None = None
    """The figure of `variant` over the pairs; null without pairs."""
    against_value: float | None = None
    """The figure of `against` over the pairs."""
    difference: float | None
    """The first less the second; null without pairs."""
    low: float | None
    """The lower end of the difference's interval, over groups of near-duplicates where there are any."""
    high: float | None
    """The upper end of the difference's interval."""
    p_value: float | None
    """The test's p-value; null when there was nothing to test."""
    p_adjusted: float | None
    """The p-value adjusted within the family; null when there was nothing to test, or without a family."""
    family: str | None
    """The comparisons it was adjusted together with; null for a random draw of experts, which only describes two
    checkpoints and decides nothing."""
    test: str
    """The name of the test: exact McNemar, cluster-robust t, paired t or exact sign."""
    unit: Unit
    """What is paired; of several answers to a prompt, the prompt's share of them."""
    n: int = Field(ge=0)
    """How many pairs both variants have a figure for."""
    clusters: int | None = Field(default=None, ge=0)
    """How many groups of near-duplicates they form; null where no prompt repeats another."""
    discordant: int | None = Field(ge=0)
    """How many of them the two variants differ on; null when the metric is not yes or no."""
    worst_case: tuple[float, float] | None = Field(default=None, strict=False)
    """The difference over all samples with each unscored one counted against the variant, then for it."""
    p_worst_case: float | None = None
    """The p-value in the worst case for the difference, adjusted as `p_adjusted` is; 1 where its sign may turn."""
    minimum_detectable: float | None
    """The smallest true difference that is found in four of five runs, at the level of the family's first test."""
    margin: float | None = None
    """Of a cost: the loss that was declared beforehand not to matter."""
    bound: float | None = None
    """Of a cost: the largest loss that is not ruled out (one-sided 0.025, unscored samples counted against the
    variant); negative where a gain is shown."""
    decided_on: int | None = None
    """Of a cost: the independent samples behind `bound`, one per group of near-duplicates."""
    needed: int | None = None
    """Of a cost that is not decided: about how many samples would decide it at the rates seen; null where more would
    not."""
    verdict: Verdict | None = None
    """Of a gain: better, worse or not decided. Of a cost: no worse, worse or not decided. Null where nothing is
    decided."""


class Gain(Part):
    """The one figure that gains rest on, in a run whose answers were judged for refusal and for harmfulness."""

    metric: Literal["refusal_rate", "harmful_rate"]
    """Whether harmful answers fall, or refusals rise."""
    judge: str
    """The judge whose verdicts count."""
    declared: bool
    """Whether the run's settings named the figure or its judge; false where the judge was added to the finished run."""


class Claim(Part):
    """A claim about a method, choosing experts by a score: tested over random draws of experts, not over prompts."""

    variant: str
    """The variant whose experts the method chose."""
    method: str
    """The score that chose them."""
    metric: str
    """The figure that it rests on; declared beforehand, unless `gain` says otherwise."""
    better: Literal["higher", "lower"] | None
    """Which way of it is better; null where it was not measured."""
    tasks: list[str]
    """The harmful tasks it is the mean over."""
    judge: str | None
    """The judge whose verdicts these are."""
    value: float | None
    """The method's figure, with every unscored answer counted against it; null without a figure."""
    draws: dict[str, float]
    """Each draw's figure by its name, with every unscored answer counted for it."""
    p_value: float | None
    """(1 + draws that do as well or better) / (draws + 1); null where there is nothing to compare."""
    use_share: float | None = None
    """How much the draws' experts are used, as a share of how much the method's are, on average; null where unknown."""
    prompts: int = Field(ge=0)
    """On how many prompts: those that the draws answered."""
    verdict: Literal["shown", "not shown", "nothing claimed"]
    """Whether choosing experts by the method is better than drawing them."""
    reason: str | None = None
    """Why nothing is claimed; null where something is decided."""
