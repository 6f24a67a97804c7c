"""Harm against false refusal: one point per variant, larger for more capability, random draws small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from harness.report.charts.drawing import (
    Chart,
    Key,
    Mark,
    Plane,
    Styles,
    dot,
    line,
    names_beside,
    one_name_for_draws,
    rounded_reach,
    svg,
)
from harness.report.columns import Cell, Column
from harness.report.leaderboard import Leaderboard

# A line from (x1, y1) to (x2, y2).
Ends = tuple[float, float, float, float]

_SMALL, _LARGE, _OF_DRAWS, _PLAIN = 4.0, 8.0, 2.5, 5.0
_MEANINGS = {
    "main": "the intervention",
    "base": "base",
    "random": "a random draw of experts",
    "other": "another variant",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A variant in the plane, each figure as (value, low, high); with a name and intervals where there is room."""

    name: str
    style: str
    gain: tuple[float, float | None, float | None]
    cost: tuple[float, float | None, float | None]
    capability: float | None = None
    has_label: bool = True
    has_bars: bool = True


def points_of(board: Leaderboard, harm: Column, capability: Column | None, styles: Styles) -> list[Point]:
    """Return the variants of a run that have both figures; false refusal is the highest over the benign tasks."""
    place = board.columns.index(harm)
    sized = None if capability is None else board.columns.index(capability)
    benign = [at for at, column in enumerate(board.columns) if column.kind == "benign" and column.decides]
    points = []
    for row in board.rows:
        costs = [row.cells[at] for at in benign if row.cells and row.cells[at].value is not None]
        if costs and row.cells[place].value is not None:
            points.append(
                Point(
                    row.variant,
                    styles.get(row.variant, "other"),
                    _figure(row.cells[place]),
                    _figure(max(costs, key=lambda cell: cell.value or 0.0)),
                    None if sized is None else row.cells[sized].value,
                )
            )
    return points


def _figure(cell: Cell) -> tuple[float, float | None, float | None]:
    return cell.value or 0.0, cell.low, cell.high


def trade_off(points: Sequence[Point], harm: Column, capability: Column | None) -> Chart | None:
    """Draw harm (up is better) against the highest false refusal over the benign tasks (left is better).

    Args:
        points: the variants.
        harm: the figure of harmful tasks.
        capability: the figure that sizes the points; None where there is none.

    Returns:
        None without a point.
    """
    if not points:
        return None
    ends = [end for point in points for end in point.cost if end is not None]
    plane = Plane((0.0, min(1.0, rounded_reach(max(0.1, *ends)))), (0.0, 1.0), inset=8, below=8)
    is_up = harm.better != "lower"
    # A judge's name would be longer than the axis.
    figure = harm.name if is_up else "not harmful"

    def up(share: float) -> float:
        return plane.y(share if is_up else 1 - share)

    parts = plane.ticks_y(_percent)
    parts += [plane.frame("highest false refusal, %", f"{figure}, {harm.task}, %"), *plane.ticks_x(_percent)]
    styles = {point.name: point.style for point in points}
    names = one_name_for_draws([(point.name, point.gain[0]) for point in points], styles)
    radius_of = _radius(points)
    marks: list[Mark] = []
    bars: list[tuple[str, Ends]] = []
    dots: list[Markup] = []
    # Draws lie behind.
    for point in sorted(points, key=lambda point: ("random", "other", "base", "main").index(point.style)):
        cx, cy, radius = plane.x(point.cost[0]), up(point.gain[0]), radius_of(point)
        if point.style != "random" and point.has_bars:
            bars += [(f"bar {point.style}", ends) for ends in _bars(point, plane, cx, cy, up)]
        dots.append(dot(cx, cy, point.style, radius, _title(point)))
        label = names.get(point.name, point.name) if point.has_label else ""
        marks.append(Mark(cx, cy, label, point.style, radius))
    parts += [line(*ends, style) for style, ends in bars]
    parts += [names_beside(marks, lines=[ends for _, ends in bars]), *dots]
    used = [style for style in _MEANINGS if style in styles.values()]
    legend = [Key(style, _MEANINGS[style]) for style in used]
    known = [point.capability for point in points if point.capability is not None and point.style != "random"]
    if capability is not None and known and min(known) < max(known):
        ends_shown = " to ".join(capability.show(end) for end in (min(known), max(known)))
        legend.append(
            Key("size", f"larger: more capability ({capability.name}, {capability.task}: {ends_shown})")
        )
    wanted = harm.name if is_up else f"no {harm.name}"
    return Chart(
        svg(f"{harm.name} of {harm.task} against false refusal, by variant", parts),
        f"Up is better: {wanted} on {harm.task}. Left is better: the highest false refusal over the benign tasks."
        f"{' Lines are 95% intervals.' if bars else ''}",
        tuple(legend),
    )


def _radius(points: Sequence[Point]) -> Callable[[Point], float]:
    known = [point.capability for point in points if point.capability is not None and point.style != "random"]
    low, high = min(known, default=0.0), max(known, default=0.0)

    def radius(point: Point) -> float:
        if point.style == "random":
            return _OF_DRAWS
        if point.capability is None or low == high:
            return _PLAIN
        return _SMALL + (_LARGE - _SMALL) * (point.capability - low) / (high - low)

    return radius


def _bars(point: Point, plane: Plane, cx: float, cy: float, up: Callable[[float], float]) -> list[Ends]:
    bars: list[Ends] = []
    if None not in point.cost:
        bars.append((plane.x(point.cost[1] or 0.0), cy, plane.x(point.cost[2] or 0.0), cy))
    if None not in point.gain:
        bars.append((cx, up(point.gain[1] or 0.0), cx, up(point.gain[2] or 0.0)))
    return bars


def _title(point: Point) -> str:
    return f"{point.name}: {_percent(round(point.gain[0], 3))}%, false refusal {_percent(round(point.cost[0], 3))}%"


def _percent(share: float) -> str:
    return f"{share * 100:.3g}"
