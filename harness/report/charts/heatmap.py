"""The map of all experts: layers down, experts across, coloured by risk difference."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    import pandas as pd

# Shades on either side of zero; reports/style.css has one class for each (m4 ... m1, z, p1 ... p4).
SHADES = 4
_MARGIN_LEFT, _MARGIN_TOP = 34, 18


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One phase's map, with the legend: each shade's class and the value at its middle."""

    phase: str
    svg: Markup
    legend: tuple[tuple[str, float], ...]


def heat_maps(table: pd.DataFrame, selected: Collection[tuple[int, int]], first: str | None) -> list[HeatMap]:
    """Return one map for each phase of the expert table, the phase `first` first.

    Args:
        table: columns phase, layer, expert, risk_diff.
        selected: (layer, expert) pairs to outline.
        first: the phase that the selection was made on, if any.
    """
    phases = sorted({str(phase) for phase in table["phase"]}, key=lambda phase: (phase != first, phase))
    return [heat_map(table[table["phase"] == phase], selected, phase) for phase in phases]


def heat_map(rows: pd.DataFrame, selected: Collection[tuple[int, int]], phase: str) -> HeatMap:
    """Return the map of one phase's rows of the expert table."""
    layers = sorted({int(layer) for layer in rows["layer"]})
    place = {layer: index for index, layer in enumerate(layers)}
    n_experts = int(rows["expert"].max()) + 1
    risks = [float(risk) for risk in rows["risk_diff"]]
    most = max((abs(risk) for risk in risks if risk == risk), default=0.0) or 1.0
    cell = max(4, min(18, 680 // n_experts))
    by_shade: dict[str, list[str]] = {}
    outlines: list[str] = []
    for layer, expert, risk in zip(rows["layer"], rows["expert"], risks, strict=True):
        x, y = _MARGIN_LEFT + int(expert) * cell, _MARGIN_TOP + place[int(layer)] * cell
        if risk == risk:  # an expert without a score stays blank
            by_shade.setdefault(_shade(risk / most), []).append(f"M{x} {y}h{cell}v{cell}h-{cell}z")
        if (int(layer), int(expert)) in selected:
            outlines.append(f"M{x + 1} {y + 1}h{cell - 2}v{cell - 2}h-{cell - 2}z")
    parts = [
        Markup('<path class="{}" d="{}"/>').format(shade, "".join(cells))
        for shade, cells in sorted(by_shade.items())
    ]
    outline = Markup('<path class="chosen" stroke-width="{}" d="{}"/>')
    parts.append(outline.format(2 if cell >= 8 else 1, "".join(outlines)))
    parts += _numbers(layers, n_experts, cell)
    width, height = _MARGIN_LEFT + n_experts * cell + 4, _MARGIN_TOP + len(layers) * cell + 4
    svg = Markup(
        '<svg class="map" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img">'
        "<title>Risk difference of {2} experts in {3} layers, phase {4}; {5} chosen</title>{6}</svg>"
    ).format(width, height, len(risks), len(layers), phase, len(outlines), Markup("").join(parts))
    legend = ((_shade(step / SHADES), most * step / SHADES) for step in range(-SHADES, SHADES + 1))
    return HeatMap(phase, svg, tuple(legend))


def _shade(relative: float) -> str:
    """Return the class of a value between -1 and 1."""
    step = round(relative * SHADES)
    return "z" if step == 0 else f"{'p' if step > 0 else 'm'}{abs(step)}"


def _numbers(layers: list[int], n_experts: int, cell: int) -> list[Markup]:
    every, apart = math.ceil(14 / cell), math.ceil(28 / cell)
    text = Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>')
    down = [
        text.format(_MARGIN_LEFT - 6, _MARGIN_TOP + index * cell + cell / 2 + 4, "end", layer)
        for index, layer in enumerate(layers)
        if index % every == 0
    ]
    across = [
        text.format(_MARGIN_LEFT + expert * cell + cell / 2, _MARGIN_TOP - 5, "middle", expert)
        for expert in range(0, n_experts, apart)
    ]
    return down + across
