"""gates.yaml: the bounds that a run must be shown to keep."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.runs.metrics import metric_named

FROZEN = "frozen_unchanged"
CLAIM = "claim"
"""The claim that choosing experts is better than drawing them."""
COUNTS = ("unscored", "truncated", "looping")
REFERENCE = "reference"
"""As `against`: the reference that the command line names."""

Side = Literal["lower", "upper"]

# Which end of an interval has to be on the right side of the bound.
_SIDES: dict[str, Side] = {
    "at_least": "lower",
    "at_most": "upper",
    "at_most_below": "lower",
    "above_by": "lower",
    "at_most_above": "upper",
    "below_by": "upper",
}
_ABSOLUTE = ("at_least", "at_most")
# A difference is the variant's share less the other's.
_NEGATIVE = ("at_most_below", "below_by")


class Bound(NamedTuple):
    """The requirement on a share, a difference or a count: to be at `limit` or on the named side of it."""

    side: Side
    limit: float


class Gate(BaseModel):
    """One bound. Shares and differences are fractions of 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
    """What the gate is called in every output."""
    metric: str
    """Any metric that was measured, such as refusal_rate, harmful_rate, kl or acc; unscored, truncated or looping
    (counts); or frozen_unchanged; or claim, the claim about choosing experts."""
    task: str | None = None
    """The prompt task or lm-eval task; frozen_unchanged, claim and figures over all tasks, such as kl, have none."""
    variant: str | None = None
    """The variant in question; by default the run's intervention."""
    judge: str | None = None
    """Whose verdicts count; by default the run's primary judge, or the first judge of the metric's quantity."""
    at_least: float | None = Field(None, gt=0)
    """The share is this or more."""
    at_most: float | None = Field(None, ge=0)
    """The share is this or less; of counts, so many answers or fewer."""
    against: str | None = None
    """What the bounds below compare with: another variant, `reference`, or a random draw, which means all of them."""
    at_most_below: float | None = Field(None, ge=0, lt=1)
    """The share is below the other's by this or less (non-inferiority where more is better)."""
    at_most_above: float | None = Field(None, ge=0, lt=1)
    """The share is above the other's by this or less (non-inferiority where less is better)."""
    above_by: float | None = Field(None, ge=0, lt=1)
    """The share is above the other's by this or more; 0: above it."""
    below_by: float | None = Field(None, ge=0, lt=1)
    """The share is below the other's by this or more; 0: below it."""

    @model_validator(mode="after")
    def _consistent(self) -> Gate:
        if self.metric in (FROZEN, CLAIM):
            unfit = [key for key in (*_SIDES, "task", "judge", "against") if getattr(self, key) is not None]
            if unfit:
                raise ValueError(f"gate '{self.name}': {self.metric} takes no {unfit[0]}")
            return self
        if self.task is None and metric_named(self.metric, None).of_a_task:
            raise ValueError(f"gate '{self.name}': task is missing")
        given = [key for key in _SIDES if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(
                f"gate '{self.name}': expected one bound of {', '.join(_SIDES)}; found {' and '.join(given) or 'none'}"
            )
        key, amount = self.given
        if (self.against is None) != (key in _ABSOLUTE):
            raise ValueError(
                f"gate '{self.name}': {key} goes with {'no' if key in _ABSOLUTE else 'a value for'} against"
            )
        if self.metric in COUNTS:
            if key != "at_most" or amount != int(amount):
                raise ValueError(
                    f"gate '{self.name}': {self.metric} is a count, expected at_most with a whole number"
                )
        elif self.is_share and amount > 1:
            raise ValueError(f"gate '{self.name}': {key} is a fraction of 1, found {amount:g}")
        elif self.is_share and (key, amount) in (("at_least", 1), ("at_most", 0)):
            raise ValueError(
                f"gate '{self.name}': {key} {amount:g} cannot be shown, however many samples there are; "
                f"expected {'less than 1' if amount else 'more than 0'}"
            )
        elif self.is_share and (key, amount) == ("at_most", 1):
            raise ValueError(f"gate '{self.name}': at_most 1 is kept by every share; expected less than 1")
        return self

    @property
    def is_share(self) -> bool:
        """Whether its bound is a fraction of 1, rather than a plain number.

        The scale of one of lm-eval's metrics is known only from a run, so a bound on it above 1 is taken for a number.
        """
        unit = metric_named(self.metric, self.task).unit
        return unit == "share" or (unit is None and self.given[1] <= 1)

    @property
    def given(self) -> tuple[str, float]:
        """The bound as the file has it: its key and amount."""
        key = next(key for key in _SIDES if getattr(self, key) is not None)
        return key, float(getattr(self, key))

    @property
    def bound(self) -> Bound:
        """The required side and limit; a difference's limit has its sign."""
        key, amount = self.given
        return Bound(_SIDES[key], -amount if key in _NEGATIVE and amount else amount)


class GateFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    confidence: float = Field(0.95, ge=0.8, lt=1)
    """Of each gate by itself: where a bound is just not kept, it passes at most 1 - confidence of the time."""
    gates: tuple[Gate, ...] = Field(min_length=1)
    """All must pass."""

    @model_validator(mode="after")
    def _names_differ(self) -> GateFile:
        for name, times in Counter(gate.name for gate in self.gates).items():
            if times > 1:
                raise ValueError(f"two gates are called '{name}'")
        return self

    @property
    def level(self) -> float:
        """The error that a gate allows."""
        # So that 1 - 0.95 is 0.05 and not a little more.
        return round(1 - self.confidence, 12)
