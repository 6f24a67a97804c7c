"""Refusal while trained experts are put back to base one after another."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from harness.report.charts.drawing import Chart, Key, Plane, dot, line, svg
from harness.report.words import hundredths
from harness.runs.records import Carried, CarryRecord


def carried(variant: str, found: CarryRecord) -> Chart:
    """Draw refusal and false refusal against the number put back: by rank, at random, and each random order."""
    put_back = [step.put_back for step in found.by_rank]
    plane = Plane((0.0, max(put_back[-1], 1)), (0.0, 1.0), inset=6)
    parts = plane.ticks_y("{:.0%}".format)
    parts += [
        plane.frame("experts put back to base", "refused, harmful prompts"),
        *plane.ticks_x("{:.3g}".format),
    ]
    parts += [_curve(plane, put_back, each, "random") for each in found.each]
    curves: list[tuple[str, str, list[Carried]]] = [
        ("base", "false refusal by rank", [step.benign for step in found.by_rank]),
        ("other", "random orders together", [step.harmful for step in found.random]),
        ("main", "by rank", [step.harmful for step in found.by_rank]),
    ]
    for style, name, rates in curves:
        parts.append(_curve(plane, put_back, [rate.value for rate in rates], style))
        for n, rate in zip(put_back, rates, strict=True):
            if rate.value is not None and rate.low is not None and rate.high is not None:
                parts.append(
                    line(plane.x(n), plane.y(rate.low), plane.x(n), plane.y(rate.high), f"bar {style}")
                )
                parts.append(
                    dot(plane.x(n), plane.y(rate.value), style, 3, f"{name}, {n}: {hundredths(rate.value)}%")
                )
    return Chart(
        svg(f"Refusal of {variant} by how many trained experts are put back to base", parts),
        f"Refusal of {variant} while its trained experts are put back to base. Lines at points are 95% intervals "
        f"over prompts.",
        (
            Key("main", "by rank, the highest score first"),
            Key("other", f"{len(found.each)} random orders together"),
            Key("random", "a random order"),
            Key("base", "false refusal, by rank"),
        ),
    )


def _curve(plane: Plane, put_back: Sequence[int], values: Sequence[float | None], style: str) -> Markup:
    points = " ".join(
        f"{plane.x(n):.1f},{plane.y(value):.1f}"
        for n, value in zip(put_back, values, strict=True)
        if value is not None
    )
    return Markup('<polyline class="curve {}" points="{}"/>').format(style, points)
