"""Sweeps of runs that take seconds."""

from __future__ import annotations

from typing import Any

# The demo with hardly any prompts, training or answers; nothing is to be learned from its figures.
BASE: dict[str, Any] = {
    "model": "demo",
    "limit": 8,
    "split_seed": 0,
    "baselines": [],
    "capability": {"tasks": []},
    "training": {"max_steps": 2},
    "generation": {"max_new_tokens": 4},
}
