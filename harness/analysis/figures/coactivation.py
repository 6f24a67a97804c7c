"""The pairs of experts whose working together differs most between harmful and benign prompts."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.coactivation import strongest
from harness.analysis.figures.page import BENIGN, HARMFUL, QUIET, key, page

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS_SHOWN = 15


def pairs_chart(table: pd.DataFrame, selected: Collection[tuple[int, int]], subtitle: str) -> Figure:
    """Draw the strongest pairs within layers and between neighbouring ones.

    Args:
        table: from `pair_table`.
        selected: (layer, expert) pairs; pairs of two of them are written bold.
        subtitle: of what.
    """
    figure = page(
        10.5, 5.2, "Pairs of experts that work together differently on harmful and benign prompts", subtitle
    )
    within, between = figure.subplots(1, 2)
    _panel(within, strongest(table, PAIRS_SHOWN, within=True), set(selected), within=True)
    _panel(between, strongest(table, PAIRS_SHOWN, within=False), set(selected), within=False)
    within.set_title("Within a layer")
    between.set_title("From a layer to the next")
    figure.supxlabel("tokens in 100 that go to both experts, less what independence predicts", fontsize=9)
    handles, labels = within.get_legend_handles_labels()
    key(figure, handles, labels)
    return figure


def _panel(axes: Axes, pairs: pd.DataFrame, selected: set[tuple[int, int]], *, within: bool) -> None:
    ordered = pairs.sort_values("difference", kind="stable")
    y = np.arange(len(ordered))
    harmful, benign = (
        100 * ordered[f"excess_{kind}"].to_numpy(dtype=float) for kind in ("harmful", "benign")
    )
    axes.hlines(y, benign, harmful, color=QUIET, lw=1.5)
    axes.plot(benign, y, "s", color=BENIGN, ms=5, label="benign prompts")
    axes.plot(harmful, y, "o", color=HARMFUL, ms=6, label="harmful prompts")
    axes.axvline(0, color="#5f6368", lw=0.8, zorder=0)
    axes.grid(axis="x")
    axes.set_yticks(y, [_name(row, within) for row in ordered.itertuples(index=False)])
    for text, row in zip(axes.get_yticklabels(), ordered.itertuples(index=False), strict=True):
        if {(row.layer, row.expert), (row.other_layer, row.other_expert)} <= selected:
            text.set_fontweight("bold")
    axes.tick_params(axis="y", length=0, labelsize=8)
    if not len(ordered):
        axes.text(0.5, 0.5, "no pairs", transform=axes.transAxes, ha="center", color="#5f6368")


def _name(row: object, within: bool) -> str:
    layer, expert, other_layer, other = (
        getattr(row, field) for field in ("layer", "expert", "other_layer", "other_expert")
    )
    if within:
        return f"layer {layer}: {expert} and {other}"
    return f"layer {layer}: {expert} → layer {other_layer}: {other}"
