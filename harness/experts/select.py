"""Selection: from the expert table to the experts that an intervention acts on.

A method is a small function that gives each row of one phase's table a score; the highest are selected. It is
registered under the name that `--set selection.method=NAME` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import BadInputError
from harness.models.moe import Expert
from harness.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

Method = Callable[["pd.DataFrame"], "pd.Series[float]"]

METHODS: Registry[Method] = Registry("selection method")


@METHODS.register("risk_diff")
def _risk_diff(table: pd.DataFrame) -> pd.Series[float]:
    """Score by the plain difference of usage, a_unsafe_n - a_safe_n."""
    return table["risk_diff"]


@dataclass(frozen=True)
class ExpertSelection:
    """The experts that a variant acts on, the highest score first, and how they were found."""

    method: str
    phase: str
    experts: tuple[Expert, ...]

    def by_layer(self) -> dict[int, list[int]]:
        """Return sorted expert numbers a layer, layers in order."""
        layers: dict[int, list[int]] = {}
        for layer, expert in sorted(self.experts):
            layers.setdefault(layer, []).append(expert)
        return layers


def select_experts(
    table: pd.DataFrame,
    *,
    phase: str,
    method: str = "risk_diff",
    top_k: int | None = None,
    threshold: float | None = None,
) -> ExpertSelection:
    """Select the experts with the highest score in a phase.

    Args:
        table: from `expert_table`.
        phase: which rows to look at.
        method: how a row is scored.
        top_k: keep at most this many.
        threshold: keep only scores of at least this.

    Raises:
        BadInputError: neither limit is given, more experts are asked for than exist, or none is left.
    """
    score_of = METHODS.get(method)
    if top_k is None and threshold is None:
        raise BadInputError("selection: give top_k, threshold, or both")
    rows = table[table["phase"] == phase]
    if rows.empty:
        raise BadInputError(
            f"the expert table has no phase '{phase}': it has {', '.join(table['phase'].unique())}"
        )
    if top_k is not None and not 1 <= top_k <= len(rows):
        raise BadInputError(f"selection.top_k = {top_k}: expected 1 to {len(rows)}, the experts of the model")
    scored = rows.assign(score=score_of(rows)).sort_values(
        ["score", "layer", "expert"], ascending=[False, True, True], kind="stable"
    )
    if threshold is not None:
        scored = scored[scored["score"] >= threshold]
        if scored.empty:
            raise BadInputError(
                f"no expert reaches selection.threshold = {threshold}: the highest {method} in phase '{phase}' "
                f"is {score_of(rows).max():.4f}"
            )
    kept = scored.head(top_k) if top_k is not None else scored
    experts = tuple(map(Expert, kept["layer"].tolist(), kept["expert"].tolist()))
    return ExpertSelection(method, phase, experts)


def random_experts(selection: ExpertSelection, n_experts: int, seed: int) -> ExpertSelection:
    """Draw, per layer, as many experts as the selection has there; overlap with it is allowed.

    Args:
        selection: what to match.
        n_experts: experts of each layer.
        seed: of the draw.
    """
    generator = np.random.default_rng(seed)
    drawn = [
        Expert(layer, int(expert))
        for layer, experts in selection.by_layer().items()
        for expert in np.sort(generator.choice(n_experts, size=len(experts), replace=False))
    ]
    return ExpertSelection("random", selection.phase, tuple(drawn))
