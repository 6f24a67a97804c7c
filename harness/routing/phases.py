"""The words of routing: which tokens are looked at, and how much is kept of them. Imports nothing heavy."""

from __future__ import annotations

from typing import Literal

Phase = Literal["prompt", "generation", "all", "decision"]

Record = Literal["counts", "tokens", "logits"]
