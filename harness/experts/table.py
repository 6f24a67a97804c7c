"""The expert table: one row an expert and phase, with how often safe and unsafe prompts used it.

Columns (design: every selection method is a function of this table alone):

- phase, layer, expert: the key; `layer` is the true index in the model.
- a_safe, a_unsafe: routed tokens that went to the expert.
- a_safe_n, a_unsafe_n: the same divided by the routed tokens of the phase, so a layer's column sums to k.
- risk_diff: a_unsafe_n - a_safe_n; positive where unsafe content uses the expert more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import BadInputError
from harness.routing.counts import PHASES, Phase, RoutingCounts

if TYPE_CHECKING:
    import pandas as pd

KEY = ["phase", "layer", "expert"]


def expert_table(
    unsafe: RoutingCounts, safe: RoutingCounts, phases: Sequence[Phase] = PHASES
) -> pd.DataFrame:
    """Compare how often unsafe and safe prompts use each expert.

    Args:
        unsafe: counts of the harmful prompts.
        safe: counts of the benign prompts.
        phases: which phases to tabulate.

    Raises:
        BadInputError: the counts come from different models, or a phase has no routed token.
    """
    import pandas as pd

    if (unsafe.layers, unsafe.counts.shape[2:]) != (safe.layers, safe.counts.shape[2:]):
        raise BadInputError("the routing counts of unsafe and safe prompts come from different models")
    return pd.concat([_phase_table(unsafe, safe, phase) for phase in phases], ignore_index=True)


def _phase_table(unsafe: RoutingCounts, safe: RoutingCounts, phase: Phase) -> pd.DataFrame:
    import pandas as pd

    a_unsafe, unsafe_tokens = _pooled(unsafe, phase, "unsafe")
    a_safe, safe_tokens = _pooled(safe, phase, "safe")
    n_layers, n_experts = a_safe.shape
    a_safe_n, a_unsafe_n = a_safe / safe_tokens, a_unsafe / unsafe_tokens
    return pd.DataFrame(
        {
            "phase": phase,
            "layer": np.repeat(np.asarray(safe.layers), n_experts),
            "expert": np.tile(np.arange(n_experts), n_layers),
            "a_safe": a_safe.ravel(),
            "a_unsafe": a_unsafe.ravel(),
            "a_safe_n": a_safe_n.ravel(),
            "a_unsafe_n": a_unsafe_n.ravel(),
            "risk_diff": (a_unsafe_n - a_safe_n).ravel(),
        }
    )


def _pooled(counts: RoutingCounts, phase: Phase, which: str) -> tuple[np.ndarray, int]:
    """Return a phase's counts over all prompts, [L, E], and its routed tokens."""
    per_prompt, tokens = counts.of(phase)
    total = int(tokens.sum())
    if not total:
        raise BadInputError(
            f"the {which} prompts have no routed token in phase '{phase}': nothing to compare"
        )
    return per_prompt.sum(axis=0), total
