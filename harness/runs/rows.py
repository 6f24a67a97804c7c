"""The rows of a summary: a figure of a variant, and a test of two variants on one figure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.metrics.interval import Interval

BASE = "base"
REFUSAL = "refusal_rate"
"""The rate that every prompt task is asked for; on benign prompts it is false refusal."""
HARMFUL = "harmful_rate"
"""The share of harmful answers to harmful prompts."""

Kind = Literal["harmful", "benign", "capability", "text"]
Unit = Literal["prompts", "items"]

# Wilson's bounds at a rate of 0 or 1 may miss it by rounding.
_ROUNDING = 1e-9


class Part(BaseModel):
    """The base of every part of a summary: frozen, and strict when it is written."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Clustered(Part):
    """A figure again, over groups of near-duplicate prompts as the independent units."""

    low: float
    """The lower end of its interval."""
    high: float
    """The upper end of its interval."""
    groups: int = Field(ge=1)
    """How many groups."""
    p_value: float | None = None
    """Of a difference, not adjusted; null for a rate."""


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
    """How many samples it is over: prompts asked, refusals compared, questions, or answers."""
    scored: int = Field(ge=0)
    """How many of them the figure counts."""
    unscored: int = Field(ge=0)
    """How many it leaves out, since they could not be judged."""
    truncated: int | None = Field(default=None, ge=0)
    """How many answers the token limit truncated; they are judged as they are. Null for other samples."""
    worst_case: tuple[float, float] | None = Field(default=None, strict=False)
    """The rate over all prompts if every unscored answer went one way, then the other."""
    clustered: Clustered | None = None
    """Its interval over groups of near-duplicates; null where no prompt of the task repeats another."""
    corrected: Interval | None = None
    """The rate corrected by people's labels of the same answers; null when it was not corrected."""
    not_corrected: str | None = None
    """Why it was not corrected; null when it was, and for figures that are never corrected."""
    stderr: float | None = None
    """The standard error as lm-eval reports it; null where it gives none."""
    unparsed: int | None = Field(default=None, ge=0)
    """How many answers held no readable choice (they count as wrong); null where that cannot happen."""
    tokens: int | None = Field(default=None, ge=0)
    """The tokens of all samples, of a figure per token."""

    @model_validator(mode="after")
    def _adds_up(self) -> Measurement:
        if self.scored + self.unscored != self.n:
            raise ValueError(f"scored {self.scored} + unscored {self.unscored} is not n {self.n}")
        if self.truncated is not None and self.truncated > self.n:
            raise ValueError(f"truncated {self.truncated} is more than n {self.n}")
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


class Comparison(Part):
    """One paired test of two variants on the prompts of one task."""

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
    """The name of the test: exact McNemar, paired z or exact sign."""
    unit: Unit
    """What the test takes as its independent samples."""
    n: int = Field(ge=0)
    """How many of them both variants have a figure for."""
    discordant: int | None = Field(ge=0)
    """How many of them the two variants differ on; null when the metric is not yes or no."""
    margin: float | None = None
    """The loss that was declared beforehand not to matter; null when none was."""
    verdict: str | None = None
    """The decision; null without a margin."""
    minimum_detectable: float | None
    """The smallest difference such a test finds in four of five runs; null when it was not computed."""
    clustered: Clustered | None = None
    """Interval and test over groups of near-duplicates; null without repeated prompts or without variance."""
