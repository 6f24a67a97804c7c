"""Do the experts that harmful prompts use more while they are read also stand out while they are answered?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    import pandas as pd

PHASES_COMPARED = ("prompt", "generation")


class Agreement(NamedTuple):
    """How far two phases' scores agree.

    Attributes:
        scores: one row per expert: layer, expert, `prompt` and `generation` (its risk differences), and
            `prompt_top` and `generation_top` (whether it is among the k highest, or lowest).
        spearman: the rank correlation over all experts; None where one phase's scores are all equal.
        k: how many experts count as the top.
        overlap: how many experts are in both tops.
        by_chance: the overlap that two random choices of k experts have on average, k * k / experts.
    """

    scores: pd.DataFrame
    spearman: float | None
    k: int
    overlap: int
    by_chance: float


def agreement(table: pd.DataFrame, k: int, *, lowest: bool = False) -> Agreement:
    """Compare the risk differences of prompt and answer.

    Args:
        table: the expert table.
        k: how many of the highest to compare; at most all experts are.
        lowest: compare the lowest instead, as where experts are wanted that harmful prompts use less.

    Raises:
        BadInputError: the table lacks one of the phases.
    """
    from scipy.stats import spearmanr

    prompt, generation = (_scores(table, phase) for phase in PHASES_COMPARED)
    scores = prompt.merge(generation, on=["layer", "expert"], validate="one_to_one")
    k = min(k, len(scores))
    for phase in PHASES_COMPARED:
        # Equal scores are ordered by layer and expert, as the selection does it.
        ordered = scores.sort_values([phase, "layer", "expert"], ascending=[lowest, True, True])
        scores[f"{phase}_top"] = scores.index.isin(ordered.index[:k])
    constant = scores["prompt"].nunique() < 2 or scores["generation"].nunique() < 2
    rank = None if constant else float(spearmanr(scores["prompt"], scores["generation"]).statistic)
    overlap = int(np.sum(scores["prompt_top"] & scores["generation_top"]))
    return Agreement(scores, rank, k, overlap, k * k / len(scores))


def _scores(table: pd.DataFrame, phase: str) -> pd.DataFrame:
    rows = table[table["phase"] == phase]
    if rows.empty:
        raise BadInputError(f"the expert table has no phase '{phase}'")
    return rows[["layer", "expert", "risk_diff"]].rename(columns={"risk_diff": phase})
