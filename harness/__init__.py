"""Find, fine-tune and honestly evaluate the unsafe experts of Mixture-of-Experts language models.

`read_run` opens the folder that a run leaves (docs/python-api.md); the other functions are those of the original guide.
Names are loaded on first use, so that importing the package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.guide import (
        calculate_risk_diff,
        freeze_model_except_unsafe_experts,
        get_routings_with_generation,
        identify_unsafe_experts,
        process_prompt_batch,
        separate_prompt_and_generation_routings,
    )
    from harness.runs.run import Run, read_run

__version__ = "0.1.0"

__all__ = [
    "Run",
    "calculate_risk_diff",
    "freeze_model_except_unsafe_experts",
    "get_routings_with_generation",
    "identify_unsafe_experts",
    "process_prompt_batch",
    "read_run",
    "separate_prompt_and_generation_routings",
]

_RUN = ("Run", "read_run")


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = "harness.runs.run" if name in _RUN else "harness.guide"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
