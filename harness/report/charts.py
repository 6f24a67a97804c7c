"""Charts as inline SVG. Colours are classes of reports/style.css, so that dark mode and print reach them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from harness.report.columns import Cell, Column
from harness.report.leaderboard import Leaderboard
from harness.report.words import listing, visible
from harness.runs.records import TrainingStep
from harness.runs.rows import BASE, Claim
from harness.runs.summary import Summary

if TYPE_CHECKING:
    import pandas as pd

_WIDTH, _HEIGHT = 480, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 48
_LINE = 14  # the least distance of two labels


# Each variant's class of reports/style.css.
Styles = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Label:
    x: float
    y: float
    text: str
    style: str


@dataclass(frozen=True, slots=True)
class _Plane:
    """The ranges of a chart's values, and where values lie in its picture."""

    across: tuple[float, float]
    up: tuple[float, float]
    right: int = _RIGHT
    inset: int = 0

    def x(self, value: float) -> float:
        low, high = self.across
        width = _WIDTH - _LEFT - self.right - 2 * self.inset
        return _LEFT + self.inset + (value - low) / (high - low) * width

    def y(self, value: float) -> float:
        low, high = self.up
        return _HEIGHT - _BOTTOM - (max(value, low) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def frame(self, below: str, beside: str) -> Markup:
        bottom, end, middle = _HEIGHT - _BOTTOM, _WIDTH - self.right, (_TOP + _HEIGHT - _BOTTOM) / 2
        axis = Markup(
            '<text class="axis" text-anchor="middle" transform="translate(13 {:.0f}) rotate(-90)">{}</text>'
        )
        return (
            _line(_LEFT, bottom, end, bottom, "frame")
            + _line(_LEFT, _TOP, _LEFT, bottom, "frame")
            + _text((_LEFT + end) / 2, _HEIGHT - 8, below, "axis", "middle")
            + axis.format(middle, beside)
        )

    def ticks_x(self, show: Callable[[float], str], values: Sequence[float] = ()) -> list[Markup]:
        height = _HEIGHT - _BOTTOM + 16
        return [
            _text(self.x(value), height, show(value), "tick", "middle")
            for value in values or np.linspace(*self.across, 5).tolist()
        ]

    def ticks_y(self, show: Callable[[float], str]) -> list[Markup]:
        return [
            _line(_LEFT - 4, self.y(value), _LEFT, self.y(value), "frame")
            + _text(_LEFT - 8, self.y(value) + 4, show(value), "tick", "end")
            for value in np.linspace(*self.up, 5).tolist()
        ]


def styles_of(summary: Summary) -> dict[str, str]:
    """Return how each variant is drawn: main (the intervention), base, random (experts drawn at random) or other."""
    styles = {name: "random" if variant.is_draw else "other" for name, variant in summary.variants.items()}
    return styles | {BASE: "base"} | {summary.intervention: "main"}


def trade_off(board: Leaderboard, harmful: Column, styles: Styles) -> Markup | None:
    """Draw harmful refusal (up is better) against false refusal (left is better).

    False refusal is the highest over the benign tasks, so that no task hides another.

    Returns:
        None where no variant has both.
    """
    place = board.columns.index(harmful)
    benign = [
        index for index, column in enumerate(board.columns) if column.kind == "benign" and column.decides
    ]
    points: list[tuple[str, Cell, Cell]] = []
    for row in board.rows:
        costs = [row.cells[index] for index in benign if row.cells and row.cells[index].value is not None]
        if costs and row.cells[place].value is not None:
            points.append((row.variant, max(costs, key=lambda cell: cell.value or 0.0), row.cells[place]))
    if not points:
        return None
    reach = min(1.0, _nice(max(0.1, *(cost.high or 0.0 for _, cost, _ in points))))
    plane = _Plane((0.0, reach), (0.0, 1.0))
    x, y = plane.x, plane.y
    parts = [plane.frame("highest false refusal, %", "harmful refusal, %")]
    parts += plane.ticks_x(lambda share: f"{share * 100:.3g}")
    parts += plane.ticks_y(lambda share: f"{share * 100:.3g}")
    labels_of = _one_name_for_draws([(name, gain.value or 0.0) for name, _, gain in points], styles)
    labels, dots = [], []
    for name, cost, gain in points:
        style = styles.get(name, "other")
        cx, cy = x(cost.value or 0.0), y(gain.value or 0.0)
        if None not in (cost.low, cost.high, gain.low, gain.high):
            parts.append(_line(x(cost.low or 0.0), cy, x(cost.high or 0.0), cy, f"bar {style}"))
            parts.append(_line(cx, y(gain.low or 0.0), cx, y(gain.high or 0.0), f"bar {style}"))
        dots.append(_dot(cx, cy, style))
        labels.append(_Label(cx, cy, labels_of.get(name, name), style))
    parts.append(_labels(labels, turn=_WIDTH * 0.55))
    parts += dots  # above the labels, whose halos would hide them
    return _svg(f"Refusal of {harmful.task} against false refusal, by variant", parts)


def capability(board: Leaderboard, column: Column, styles: Styles) -> Markup | None:
    """Draw each variant's capability with its interval, one row per variant, base's as a line through all.

    Returns:
        None where no variant has a value.
    """
    place = board.columns.index(column)
    rows = [
        (row.variant, row.cells[place])
        for row in board.rows
        if row.cells and row.cells[place].value is not None
    ]
    if not rows:
        return None
    ends = [end for _, cell in rows for end in (cell.low, cell.value, cell.high) if end is not None]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.06 or 0.05
    low, high = low - margin, high + margin
    left, row_height = 150, 24
    height = 40 + row_height * len(rows)

    def x(figure: float) -> float:
        return left + (figure - low) / (high - low) * (_WIDTH - left - _RIGHT)

    parts: list[Markup] = []
    for step in range(4):
        figure = low + (high - low) * (step + 0.5) / 4
        parts.append(_text(x(figure), height - 22, column.show(figure), "tick", "middle"))
    parts.append(_text((left + _WIDTH) / 2, height - 5, f"{column.name} {column.unit}", "axis", "middle"))
    for index, (name, cell) in enumerate(rows):
        style, cy = styles.get(name, "other"), 12 + index * row_height
        value = cell.value or 0.0
        if name == BASE:
            parts.append(_line(x(value), 2, x(value), height - 36, "guide"))
        parts.append(_text(left - 10, cy + 4, _short(name), f"label {style}", "end"))
        if cell.low is not None and cell.high is not None:
            parts.append(_line(x(cell.low), cy, x(cell.high), cy, f"bar {style}"))
        parts.append(_dot(x(value), cy, style))
    return _svg(f"Capability on {column.task}, by variant", parts, height)


def draws(claim: Claim) -> Markup | None:
    """Draw the method's figure and that of every random draw on one scale, equal ones above one another.

    Returns:
        None where there is no draw.
    """
    if claim.value is None or not claim.draws:
        return None
    left, step = 24, 9
    high = max(Counter(round(value, 3) for value in claim.draws.values()).values()) * step
    ground = 34 + high
    height = ground + 44

    def x(figure: float) -> float:
        return left + figure * (_WIDTH - 2 * left)

    parts = [_line(left, ground, _WIDTH - left, ground, "frame")]
    for share in np.linspace(0, 1, 6).tolist():
        parts.append(_text(x(share), ground + 16, f"{share * 100:.0f}", "tick", "middle"))
    what = f"{claim.metric} over {listing(claim.tasks)}, %"
    parts.append(_text(_WIDTH / 2, height - 6, what, "axis", "middle"))
    above: Counter[float] = Counter()
    for value in sorted(claim.draws.values()):
        place = round(value, 3)
        parts.append(_dot(x(value), ground - 8 - step * above[place], "random", 4))
        above[place] += 1
    own = x(claim.value)
    anchor = "end" if claim.value > 0.5 else "start"
    parts.append(_line(own, 20, own, ground, "guide"))
    parts.append(_dot(own, 20, "main"))
    parts.append(_text(own + (-10 if anchor == "end" else 10), 24, claim.variant, "label main", anchor))
    return _svg(f"{claim.variant} among {len(claim.draws)} random draws of experts", parts, height)


def losses(curves: Mapping[str, Sequence[TrainingStep]], styles: Styles) -> Markup | None:
    """Draw the training loss of each trained variant over the steps.

    Returns:
        None where there is nothing to draw.
    """
    drawn = {name: steps for name, steps in curves.items() if steps}
    finite = [step.loss for steps in drawn.values() for step in steps if math.isfinite(step.loss)]
    if not finite:
        return None
    last = max(step.step for steps in drawn.values() for step in steps) or 1
    plane = _Plane((0.0, last), (0.0, _nice(max(finite)) or 1.0), right=120)
    x, y = plane.x, plane.y
    parts = [plane.frame("step", "loss on answer tokens")]
    parts += plane.ticks_x("{:.4g}".format) + plane.ticks_y("{:.3g}".format)
    labels_of = _one_name_for_draws([(name, steps[-1].loss) for name, steps in drawn.items()], styles)
    labels = []
    for name, steps in drawn.items():
        style = styles.get(name, "other")
        path = " ".join(f"{x(step.step):.1f},{y(step.loss):.1f}" for step in _thinned(steps))
        parts.append(Markup('<polyline class="curve {}" points="{}"/>').format(style, path))
        labels.append(_Label(x(steps[-1].step), y(steps[-1].loss), labels_of.get(name, name), style))
    parts.append(_labels(labels, turn=_WIDTH))
    return _svg("Training loss by step", parts)


def profile(table: pd.DataFrame, chosen: Collection[tuple[int, int]]) -> Markup | None:
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
    most = float(max(abs(known["risk_diff"].min()), abs(known["risk_diff"].max()))) or 1.0
    layers = [int(layer) for layer in ranges.index]
    first, last = layers[0], max(layers[-1], layers[0] + 1)
    plane = _Plane((first, last), (-most, most), inset=12)
    x, y = plane.x, plane.y
    parts = [plane.frame("layer", "risk difference, points")]
    parts.append(_line(_LEFT, y(0), _WIDTH - _RIGHT, y(0), "guide"))
    parts += plane.ticks_x(str, layers[:: max(1, math.ceil(len(layers) / 12))])
    parts += plane.ticks_y(lambda risk: f"{risk * 100:+.2g}")
    for layer, low, high in zip(layers, ranges["min"], ranges["max"], strict=True):
        parts.append(_line(x(layer), y(low), x(layer), y(high), "bar other"))
    for layer, expert, risk in zip(known["layer"], known["expert"], known["risk_diff"], strict=True):
        if (int(layer), int(expert)) in chosen:
            parts.append(_dot(x(layer), y(risk), "main", 4))
    return _svg("Risk difference by layer; dots are the chosen experts", parts)


def _thinned(steps: Sequence[TrainingStep], most: int = 400) -> list[TrainingStep]:
    finite = [step for step in steps if math.isfinite(step.loss)]
    every = max(1, math.ceil(len(finite) / most))
    return [*finite[:-1:every], *finite[-1:]]


def _one_name_for_draws(rates: Sequence[tuple[str, float]], styles: Styles) -> dict[str, str]:
    """Name a cloud of random draws once, at the draw in the middle."""
    draws = sorted((rate, name) for name, rate in rates if styles.get(name, "other") == "random")
    if len(draws) < 2:
        return {}
    middle = draws[len(draws) // 2][1]
    return {name: f"{len(draws)} random draws" if name == middle else "" for _, name in draws}


def _nice(most: float) -> float:
    """Return a round number at or above `most`."""
    if most <= 0:
        return 0.0
    unit = 10.0 ** math.floor(math.log10(most))
    return next(
        unit * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if unit * step >= most * (1 - 1e-9)
    )


def _labels(labels: Sequence[_Label], turn: float) -> Markup:
    """Write each name beside its mark; crowded names go into a column beside the crowd, with lines to the marks.

    Args:
        labels: the marks, those without a name too: names keep clear of them.
        turn: marks to the right of this have their names to the left.
    """
    parts = []
    for crowd in _crowds(labels):
        named = sorted((label for label in crowd if label.text), key=lambda label: label.y)
        to_the_left = sum(label.x for label in crowd) / len(crowd) > turn
        edge = min(label.x for label in crowd) - 9 if to_the_left else max(label.x for label in crowd) + 9
        for label, height in zip(named, _spread([label.y for label in named]), strict=True):
            if len(crowd) > 1:
                parts.append(_line(label.x, label.y, edge, height - 10, f"leader {label.style}"))
            anchor = "end" if to_the_left else "start"
            parts.append(_text(edge, height - 6, _short(label.text), f"label {label.style}", anchor))
    return Markup("").join(parts)


def _spread(heights: Sequence[float]) -> list[float]:
    """Move ascending heights apart by a line at least, and into the frame."""
    apart: list[float] = []
    for height in heights:
        apart.append(max(height, apart[-1] + _LINE if apart else _TOP + 9))
    floor = float(_HEIGHT - _BOTTOM - 4)
    for index in reversed(range(len(apart))):
        apart[index] = min(apart[index], floor)
        floor = apart[index] - _LINE
    return apart


def _crowds(labels: Sequence[_Label]) -> list[list[_Label]]:
    """Group the marks whose names could meet."""
    crowds: list[list[_Label]] = []
    for label in labels:
        meets = [
            crowd
            for crowd in crowds
            if any(abs(label.x - near.x) < 140 and abs(label.y - near.y) < 1.5 * _LINE for near in crowd)
        ]
        crowds = [crowd for crowd in crowds if crowd not in meets]
        crowds.append([label, *(near for crowd in meets for near in crowd)])
    return crowds


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        style, x1, y1, x2, y2
    )


def _text(x: float, y: float, text: str, style: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        style, x, y, anchor, visible(text)
    )


def _dot(x: float, y: float, style: str, radius: int = 5) -> Markup:
    return Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(style, x, y, radius)


def _svg(title: str, parts: Sequence[Markup], height: int = _HEIGHT) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>').format(
        _WIDTH, height, visible(title), Markup("").join(parts)
    )
