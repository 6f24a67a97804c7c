"""What a gate decides and what it rests on."""

from __future__ import annotations

from typing import Literal, NamedTuple

from harness.gate.schema import Gate
from harness.gate.words import required

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
EXIT_CODES: dict[Outcome, int] = {"PASS": 0, "FAIL": 3, "INCONCLUSIVE": 4}


class Flip(NamedTuple):
    """A sample whose label differs from the one in the reference, or from that of the model it is compared with."""

    id: str
    before: str
    after: str


class Decision(NamedTuple):
    """A gate's outcome and what it rests on.

    Attributes:
        gate: the gate.
        variant: the variant in question.
        outcome: PASS, FAIL or INCONCLUSIVE.
        seen: the result in words, on one line.
        value: the share, difference or count; None where there is none.
        bound: the one-sided confidence bound that was held against the limit; None where nothing is uncertain.
        n: samples.
        unscored: samples without a verdict, on either side of a comparison.
        flips: samples whose label differs from the one in the reference, or from that of the model it is compared with.
    """

    gate: Gate
    variant: str
    outcome: Outcome
    seen: str
    value: float | None = None
    bound: float | None = None
    n: int = 0
    unscored: int = 0
    flips: tuple[Flip, ...] = ()

    @property
    def required(self) -> str:
        """The gate's bound in words."""
        return required(self.gate)
