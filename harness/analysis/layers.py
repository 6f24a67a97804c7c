"""What the risk difference does layer by layer."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def layer_profile(rows: pd.DataFrame, selected: Collection[tuple[int, int]]) -> pd.DataFrame:
    """Summarise each layer.

    Args:
        rows: one phase of the expert table.
        selected: (layer, expert) pairs.

    Returns:
        One row per layer, ascending:

        - layer
        - moved: the sum of its positive risk differences. Risk differences of a layer sum to zero, so this is the
          share of routings (of k per token) that harmful prompts send elsewhere than benign ones.
        - top_expert, top: the expert with the highest risk difference, and that.
        - top_low, top_high: its interval (NaN in a table without).
        - above: how many experts have an interval above zero (NaN in a table without).
        - selected: how many of its experts are selected.
    """
    with_interval = {"low", "high"} <= set(rows.columns)
    named = rows.assign(
        positive=rows["risk_diff"].clip(lower=0.0),
        low=rows["low"] if with_interval else float("nan"),
        high=rows["high"] if with_interval else float("nan"),
    )
    ordered = named.sort_values(["layer", "risk_diff", "expert"], ascending=[True, False, True])
    profile = (
        ordered.groupby("layer", sort=True)
        .agg(
            moved=("positive", "sum"),
            top_expert=("expert", "first"),
            top=("risk_diff", "first"),
            top_low=("low", "first"),
            top_high=("high", "first"),
        )
        .reset_index()
    )
    above = (ordered["low"] > 0).groupby(ordered["layer"]).sum()
    chosen = [layer for layer, _ in selected]
    return profile.assign(
        above=profile["layer"].map(above) if with_interval else float("nan"),
        selected=[chosen.count(layer) for layer in profile["layer"]],
    )
