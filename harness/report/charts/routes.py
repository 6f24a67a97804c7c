"""How many of base's routes each variant keeps, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from harness.metrics.route_drift import RouteDrift
from harness.report.charts.drawing import (
    WIDTH,
    Chart,
    Plane,
    Styles,
    dot,
    line,
    one_name_for_draws,
    short,
    spread,
    svg,
    text,
)
from harness.report.words import hundredths
from harness.runs.rows import BASE

_NAMES = 116  # room beside the curves


def routes_kept(figures: Mapping[str, Sequence[RouteDrift]], styles: Styles) -> Chart | None:
    """Draw the share of base's top-k slots that each variant keeps on harmful prompts, by layer.

    Args:
        figures: of each variant; base keeps its own and is not drawn.
        styles: of the variants.

    Returns:
        None where there is nothing to draw.
    """
    drawn = {
        name: rows
        for name, all_rows in figures.items()
        if name != BASE and (rows := [row for row in all_rows if _is_shown(row)])
    }
    if not drawn:
        return None
    layers = sorted({row.layer for rows in drawn.values() for row in rows if row.layer is not None})
    lowest = min(end for rows in drawn.values() for row in rows for end in (row.kept, row.kept_low or 1.0))
    plane = Plane(
        (layers[0], max(layers[-1], layers[0] + 1)),
        (min(math.floor(lowest * 10) / 10, 0.9), 1.0),
        _NAMES,
        inset=6,
    )
    parts = plane.ticks_y("{:.0%}".format)
    parts.append(plane.frame("layer", "slots kept on harmful prompts"))
    parts += plane.ticks_x(str, layers[:: max(1, math.ceil(len(layers) / 8))])
    for name, rows in sorted(drawn.items(), key=lambda item: styles.get(item[0]) != "random"):
        style, places = (
            styles.get(name, "other"),
            [(plane.x(row.layer or 0), plane.y(row.kept)) for row in rows],
        )
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(Markup('<polyline class="curve {}" points="{}"/>').format(style, points))
        for row, (x, y) in zip(rows, places, strict=True):
            if style == "main" and row.kept_low is not None and row.kept_high is not None:
                parts.append(line(x, plane.y(row.kept_low), x, plane.y(row.kept_high), "bar main"))
            if style != "random":
                parts.append(dot(x, y, style, 3, f"{name}, layer {row.layer}: {hundredths(row.kept)}%"))
    named = one_name_for_draws([(name, rows[-1].kept) for name, rows in drawn.items()], styles)
    ends = sorted((plane.y(rows[-1].kept), named.get(name, name), name) for name, rows in drawn.items())
    ends = [end for end in ends if end[1]]
    for (_, label, name), height in zip(ends, spread([height for height, *_ in ends]), strict=True):
        style = styles.get(name, "other")
        parts.append(text(WIDTH - _NAMES + 8, height, short(label, 16), f"label {style}", "start"))
    return Chart(
        svg("Share of base's top-k slots kept on harmful prompts, by layer", parts),
        "Share of base's top-k slots whose expert is kept, on the tokens of harmful prompts. Lines at the "
        "intervention's points are 95% intervals over prompts.",
    )


def _is_shown(row: RouteDrift) -> bool:
    return row.layer is not None and (row.kind, row.phase) == ("harmful", "prompt")
