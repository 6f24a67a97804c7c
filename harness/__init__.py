"""Find, fine-tune and honestly evaluate the unsafe experts of Mixture-of-Experts language models.

The names below are the ones of the original guide; they are loaded on first use, so that importing the
package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "calculate_risk_diff",
    "freeze_model_except_unsafe_experts",
    "get_routings_with_generation",
    "identify_unsafe_experts",
    "process_prompt_batch",
    "separate_prompt_and_generation_routings",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("harness.guide"), name)
    raise AttributeError(f"module 'harness' has no attribute {name!r}")
