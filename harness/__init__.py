"""Find, fine-tune and honestly evaluate the unsafe experts of Mixture-of-Experts language models.

`run` and `compare` make a run, `open` reads a finished one (docs/python-api.md); the other functions are those of the
original guide. Names are loaded on first use, so that importing the package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import Run, compare, open, run
    from harness.base.errors import BadInputError, HarnessError
    from harness.guide import (
        calculate_risk_diff,
        freeze_model_except_unsafe_experts,
        get_routings_with_generation,
        identify_unsafe_experts,
        process_prompt_batch,
        separate_prompt_and_generation_routings,
    )

__version__ = "0.1.0"

__all__ = [
    "BadInputError",
    "HarnessError",
    "Run",
    "calculate_risk_diff",
    "compare",
    "freeze_model_except_unsafe_experts",
    "get_routings_with_generation",
    "identify_unsafe_experts",
    "open",
    "process_prompt_batch",
    "run",
    "separate_prompt_and_generation_routings",
]

_MODULES = {
    **dict.fromkeys(("Run", "compare", "open", "run"), "harness.api"),
    **dict.fromkeys(("BadInputError", "HarnessError"), "harness.base.errors"),
}


if not TYPE_CHECKING:  # a checker that saw it would take any name for one of the package

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return getattr(importlib.import_module(_MODULES.get(name, "harness.guide")), name)
        raise AttributeError(f"module 'harness' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
