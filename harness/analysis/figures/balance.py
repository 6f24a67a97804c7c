"""How evenly experts are used, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.balance import Balance
from harness.analysis.figures.page import COLOURS, QUIET, key, layer_axis, page

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def balance_chart(
    balances: Mapping[str, Balance], layers: Sequence[int], n_experts: int, subtitle: str
) -> Figure:
    """Draw each layer's balance on harmful and on benign prompts.

    Args:
        balances: by kind of prompt.
        layers: true indices of the MoE layers.
        n_experts: E.
        subtitle: of what.
    """
    figure = page(8.2, 6.2, "How evenly each layer's experts are used", subtitle)
    panels = figure.subplots(3, 1, sharex=True)
    x = np.arange(len(layers))
    drawn = (
        ("Entropy of the experts' shares: 1 is perfectly even", "of its maximum", "entropy", 1.0, 1.0),
        ("Gini coefficient: 0 is perfectly even", "0 to 1", "gini", 0.0, 1.0),
        ("The busiest expert", "% of routings", "max_share", 100 / n_experts, 100.0),
    )
    for axes, (title, unit, field, even, scale) in zip(panels, drawn, strict=True):
        axes.axhline(even, color=QUIET, lw=1.2, ls=(0, (4, 3)), label="perfectly even")
        for kind, marker in (("harmful", "o"), ("benign", "s")):
            values = scale * getattr(balances[kind], field)
            axes.plot(x, values, marker=marker, ms=5, lw=1.6, color=COLOURS[kind], label=kind)
        axes.set_title(title)
        axes.set_ylabel(unit)
        axes.grid(axis="y")
        axes.margins(x=0.03, y=0.15)
    handles, labels = panels[0].get_legend_handles_labels()
    key(figure, handles, labels)
    layer_axis(panels[-1], list(layers))
    return figure
