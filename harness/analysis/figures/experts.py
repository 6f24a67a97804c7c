"""The heat map of all experts, and the profile by layer."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.figures.page import DIVERGING, HARMFUL, MANY_MARKS, QUIET, layer_axis, page

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def heat_map(rows: pd.DataFrame, selected: Collection[tuple[int, int]], subtitle: str) -> Figure:
    """Draw layers down and experts across, coloured by risk difference, the selection outlined.

    Args:
        rows: one phase of the expert table.
        selected: (layer, expert) pairs.
        subtitle: of what.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    # Missing experts and scores stay NaN, which is drawn grey.
    grid = 100 * rows.pivot(index="layer", columns="expert", values="risk_diff").sort_index()
    layers, experts = [int(x) for x in grid.index], [int(x) for x in grid.columns]
    values = np.ma.masked_invalid(grid.to_numpy(dtype=float))
    most = float(np.abs(values).max()) if values.count() else 1.0
    most = most or 1.0
    cell = min(0.3, 9.5 / len(experts))
    high = max(cell, 0.13)
    figure = page(
        1.9 + cell * len(experts),
        0.75 + max(high * len(layers), 1.3),
        "Experts used more on harmful prompts (red) and on benign ones (blue)",
        subtitle,
    )
    axes = figure.add_subplot()
    axes.set_facecolor("#d0d3d6")
    mesh = axes.pcolormesh(
        values,
        cmap=DIVERGING,
        vmin=-most,
        vmax=most,
        edgecolors="white" if cell >= 0.2 else "none",
        linewidth=0.5,
        rasterized=values.size > MANY_MARKS,
    )
    place, column = (
        {layer: i for i, layer in enumerate(layers)},
        {expert: i for i, expert in enumerate(experts)},
    )
    outlines = [
        Rectangle((column[expert], place[layer]), 1, 1)
        for layer, expert in sorted(selected)
        if layer in place and expert in column
    ]
    width = 1.8 if cell >= 0.2 else 1.1
    axes.add_collection(
        PatchCollection(outlines, facecolors="none", edgecolors="black", linewidths=width, clip_on=False)
    )
    axes.invert_yaxis()
    _numbered(axes, layers, experts, cell, high)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    bar = figure.colorbar(mesh, ax=axes, pad=0.015, fraction=0.05, aspect=18)
    bar.set_label("risk difference\n(tokens in 100)")
    bar.outline.set_visible(False)
    return figure


def _numbered(axes: Axes, layers: list[int], experts: list[int], wide: float, high: float) -> None:
    down, across = max(1, round(0.17 / high)), max(1, round(0.28 / wide))
    axes.set_yticks(np.arange(0, len(layers), down) + 0.5, [str(layer) for layer in layers[::down]])
    axes.set_xticks(np.arange(0, len(experts), across) + 0.5, [str(expert) for expert in experts[::across]])
    axes.set_xlabel("expert")
    axes.set_ylabel("layer")


def profile_chart(profile: pd.DataFrame, subtitle: str) -> Figure:
    """Draw what `layer_profile` found.

    Args:
        profile: one row a layer.
        subtitle: of what.
    """
    figure = page(8.2, 6.2, "Where in the model harmful and benign prompts part ways", subtitle)
    moved, top, counts = figure.subplots(3, 1, sharex=True)
    x = np.arange(len(profile))
    moved.bar(x, 100 * profile["moved"], color=HARMFUL, width=0.7)
    moved.set_title("Routings that harmful prompts send elsewhere: sum of the positive risk differences")
    moved.set_ylabel("routings for\n100 tokens")
    _top_experts(top, profile, x)
    counts.bar(x, profile["selected"], color=HARMFUL, width=0.7, label="selected")
    if profile["above"].notna().all():
        counts.plot(
            x,
            profile["above"],
            "o",
            mfc="white",
            mec="black",
            ms=5,
            label="95% interval above zero, selected or not",
        )
    counts.set_title("Selected experts")
    counts.set_ylabel("experts")
    counts.yaxis.get_major_locator().set_params(integer=True)
    counts.legend(loc="lower right", bbox_to_anchor=(1.0, 1.03), ncols=2, borderaxespad=0.0, borderpad=0.0)
    for axes in (moved, top, counts):
        axes.grid(axis="y")
    layer_axis(counts, [int(layer) for layer in profile["layer"]])
    return figure


def _top_experts(axes: Axes, profile: pd.DataFrame, x: np.ndarray) -> None:
    top = 100 * profile["top"].to_numpy(dtype=float)
    title = "The expert with the highest risk difference"
    if profile["top_low"].notna().all():
        ends = np.stack([top - 100 * profile["top_low"], 100 * profile["top_high"] - top])
        axes.errorbar(x, top, yerr=np.clip(ends, 0, None), fmt="none", ecolor=QUIET, elinewidth=2)
        title += ", with its 95% interval over prompts"
    axes.plot(x, top, "o", color=HARMFUL, ms=5)
    if len(profile) <= 16:
        for place, value, expert in zip(x, top, profile["top_expert"], strict=True):
            axes.annotate(
                f"expert {expert}",
                (place, value),
                (7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
    axes.axhline(0, color="#5f6368", lw=0.8)
    axes.set_title(title)
    axes.set_ylabel("tokens in 100")
