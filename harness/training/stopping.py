"""Early stopping: which state of a training was best on held-out train prompts, and when to give up waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_KEY = "held_out"


@dataclass(frozen=True)
class Look:
    """The answers to held-out train prompts at one step.

    Attributes:
        refusal: the share of harmful prompts that were refused.
        false_refusal: the share of benign prompts that were not answered; None without benign prompts.
    """

    refusal: float
    false_refusal: float | None

    @property
    def score(self) -> float:
        """Refusal less false refusal: Youden's J (1950), of a test that separates harmful prompts from benign ones."""
        return self.refusal - (self.false_refusal or 0.0)

    def row(self) -> dict[str, Any]:
        """Return its part of a row of train.jsonl."""
        return {_KEY: {**asdict(self), "score": self.score}}


Evaluate = Callable[[], Look]
"""Lets the model, with the bank's values at the moment, answer the held-out prompts."""


def best_step(log: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the step with the highest score, the earliest of several; None before the first look."""
    looks = [row for row in log if _KEY in row]
    return max(looks, key=lambda row: (row[_KEY]["score"], -row["step"]))["step"] if looks else None


def looks_since_best(log: Sequence[Mapping[str, Any]]) -> int:
    """Return how many looks came after the best one."""
    best = best_step(log)
    return sum(_KEY in row and row["step"] > best for row in log) if best is not None else 0
