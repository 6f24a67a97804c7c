"""The words of routing: which tokens are looked at, and how much is kept of them. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

Phase = Literal["prompt", "generation", "all", "decision", "reasoning", "answer"]

Record = Literal["counts", "tokens", "logits"]


def phase_among(phase: Phase, phases: Collection[str]) -> Phase:
    """Return the phase of a table that has the tokens of another: without reasoning, `answer` is `generation`."""
    return "generation" if phase == "answer" and "answer" not in phases else phase
