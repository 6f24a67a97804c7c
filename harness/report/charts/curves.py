"""Training losses by step, and the profile of risk differences by layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from harness.report.charts.drawing import (
    LEFT,
    RIGHT,
    WIDTH,
    Chart,
    Key,
    Plane,
    Styles,
    dot,
    line,
    one_name_for_draws,
    rounded_reach,
    short,
    spread,
    svg,
    text,
)
from harness.runs.records import TrainingStep

if TYPE_CHECKING:
    import pandas as pd

_NAMES = 116  # room beside the curves


def losses(curves: Mapping[str, Sequence[TrainingStep]], styles: Styles) -> Chart | None:
    """Draw the training loss of each trained variant over the steps.

    Returns:
        None where there is nothing to draw.
    """
    drawn = {name: steps for name, steps in curves.items() if steps}
    finite = [step.loss for steps in drawn.values() for step in steps if math.isfinite(step.loss)]
    if not finite:
        return None
    last = max(step.step for steps in drawn.values() for step in steps) or 1
    plane = Plane((0.0, last), (0.0, rounded_reach(max(finite))), right=_NAMES)
    parts = plane.ticks_y("{:.3g}".format)
    parts += [plane.frame("step", "loss on answer tokens"), *plane.ticks_x("{:.4g}".format)]
    named = one_name_for_draws([(name, steps[-1].loss) for name, steps in drawn.items()], styles)
    for name, steps in sorted(drawn.items(), key=lambda curve: styles.get(curve[0]) != "random"):
        points = " ".join(f"{plane.x(step.step):.1f},{plane.y(step.loss):.1f}" for step in _thinned(steps))
        parts.append(
            Markup('<polyline class="curve {}" points="{}"/>').format(styles.get(name, "other"), points)
        )
    ends = sorted((plane.y(steps[-1].loss), named.get(name, name), name) for name, steps in drawn.items())
    ends = [end for end in ends if end[1]]
    edge = WIDTH - _NAMES + 8
    for (_, label, name), height in zip(ends, spread([height for height, *_ in ends]), strict=True):
        parts.append(text(edge, height, short(label, 16), f"label {styles.get(name, 'other')}", "start"))
    return Chart(svg("Training loss by step", parts), "Training loss, on answer tokens only.")


def profile(table: pd.DataFrame, chosen: Collection[tuple[int, int]]) -> Chart | None:
    """Draw for each layer the range of its experts' risk differences, and a mark for each chosen expert.

    Args:
        table: columns layer, expert and risk_diff, of one phase.
        chosen: (layer, expert) pairs.

    Returns:
        None where there is nothing to draw.
    """
    known = table.dropna(subset=["risk_diff"])
    if known.empty:
        return None
    ranges = known.groupby("layer")["risk_diff"].agg(["min", "max"])
    most = rounded_reach(float(max(abs(known["risk_diff"].min()), abs(known["risk_diff"].max()))) * 100) / 100
    layers = [int(layer) for layer in ranges.index]
    first, last = layers[0], max(layers[-1], layers[0] + 1)
    plane = Plane((first, last), (-most, most), inset=12)
    parts = plane.ticks_y(lambda risk: f"{risk * 100:+.3g}" if risk else "0")
    parts += [
        plane.frame("layer", "risk difference, points"),
        line(LEFT, plane.y(0), WIDTH - RIGHT, plane.y(0), "guide"),
    ]
    parts += plane.ticks_x(str, layers[:: max(1, math.ceil(len(layers) / 10))])
    for layer, low, high in zip(layers, ranges["min"], ranges["max"], strict=True):
        parts.append(line(plane.x(layer), plane.y(low), plane.x(layer), plane.y(high), "bar other"))
    for layer, expert, risk in zip(known["layer"], known["expert"], known["risk_diff"], strict=True):
        if (int(layer), int(expert)) in chosen:
            parts.append(dot(plane.x(layer), plane.y(risk), "main", 4, f"layer {layer}, expert {expert}"))
    return Chart(
        svg("Risk difference by layer; dots are the chosen experts", parts),
        "Lowest to highest risk difference of each layer's experts.",
        (Key("main", "a chosen expert"), Key("bar other", "all experts of a layer")),
    )


def _thinned(steps: Sequence[TrainingStep], most: int = 400) -> list[TrainingStep]:
    finite = [step for step in steps if math.isfinite(step.loss)]
    every = max(1, math.ceil(len(finite) / most))
    return [*finite[:-1:every], *finite[-1:]]
