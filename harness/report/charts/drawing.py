"""What charts are drawn with: round ticks, a plane of values, marks, and labels that keep clear of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from harness.report.words import visible
from harness.runs.rows import BASE
from harness.runs.summary import Summary

# A picture is drawn as wide as the narrowest phone shows it, so that its text is never smaller than its font.
WIDTH, HEIGHT = 340, 300
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 44
LINE = 14
_CHARACTER = 6.6
_DISTANCES = range(9, 180, 6)
# To the right, to the left, above, below, and between.
_TURNS = [
    math.radians(angle)
    for angle in (0, 180, 270, 90, 315, 225, 45, 135, 337, 203, 23, 157, 292, 248, 68, 112)
]
_LONGEST = 26

# Each variant's class of reports/style.css: main (the intervention), base, random (a draw) or other.
Styles = Mapping[str, str]
Show = Callable[[float], str]


class Key(NamedTuple):
    """An entry of a legend: the class of its mark, and what it stands for."""

    style: str
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with its legend and caption."""

    svg: Markup
    caption: str
    legend: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with the name that is written beside it, "" for none."""

    x: float
    y: float
    text: str
    style: str
    radius: float = 5


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


@dataclass(frozen=True, slots=True)
class Plane:
    """The ranges of a chart's values, and where values lie in its picture.

    Attributes:
        across: the lowest and highest value from left to right.
        up: the same from below.
        right: how much room is left for names behind the picture.
        inset: how far from both sides values end, so that points lie inside.
        below: how far above the axis the lowest value lies, so that its points are clear of the numbers.
    """

    across: tuple[float, float]
    up: tuple[float, float]
    right: int = RIGHT
    inset: int = 0
    below: int = 0

    def x(self, value: float) -> float:
        """Return how far to the right a value lies."""
        low, high = self.across
        width = WIDTH - LEFT - self.right - 2 * self.inset
        return LEFT + self.inset + (value - low) / (high - low) * width

    def y(self, value: float) -> float:
        """Return how far down a value lies."""
        low, high = self.up
        height = HEIGHT - TOP - BOTTOM - self.below
        return HEIGHT - BOTTOM - self.below - (max(value, low) - low) / (high - low) * height

    def frame(self, below: str, beside: str) -> Markup:
        """Return both axes with their names."""
        bottom, end, middle = HEIGHT - BOTTOM, WIDTH - self.right, (TOP + HEIGHT - BOTTOM) / 2
        axis = Markup(
            '<text class="axis" text-anchor="middle" transform="translate(12 {:.0f}) rotate(-90)">{}</text>'
        )
        return (
            line(LEFT, bottom, end, bottom, "frame")
            + line(LEFT, TOP, LEFT, bottom, "frame")
            + text((LEFT + end) / 2, HEIGHT - 8, below, "axis", "middle")
            + axis.format(middle, beside)
        )

    def ticks_x(self, show: Show, values: Sequence[float] = ()) -> list[Markup]:
        """Return the numbers below the picture."""
        height = HEIGHT - BOTTOM + 16
        return [
            text(self.x(value), height, show(value), "tick", "middle")
            for value in values or round_ticks(*self.across)
        ]

    def ticks_y(self, show: Show) -> list[Markup]:
        """Return the numbers beside the picture, with faint lines across."""
        return [
            line(LEFT, self.y(value), WIDTH - self.right, self.y(value), "grid")
            + text(LEFT - 6, self.y(value) + 4, show(value), "tick", "end")
            for value in round_ticks(*self.up, most=7)
        ]


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten between two values, at most `most`.

    Examples:
        >>> round_ticks(0, 1), round_ticks(0.47, 0.63)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.5, 0.55, 0.6])
    """
    span = high - low
    if span <= 0:
        return [low]
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * each for each in (1, 2, 5, 10, 20) if span / (unit * each) <= most - 1 + 1e-9)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def rounded_reach(most: float) -> float:
    """Return the first round tick at or above `most`."""
    if most <= 0:
        return 1.0
    ticks = round_ticks(0, most)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else most
    return round(math.ceil(most / step - 1e-9) * step, 12)


def styles_of(summary: Summary) -> dict[str, str]:
    """Return how each variant is drawn."""
    styles = {name: "random" if variant.is_draw else "other" for name, variant in summary.variants.items()}
    return styles | {BASE: "base"} | {summary.intervention: "main"}


def names_beside(
    marks: Sequence[Mark],
    edge: float = WIDTH - RIGHT,
    lines: Sequence[tuple[float, float, float, float]] = (),
) -> Markup:
    """Write each name where it meets no mark and no other name, with a line to its mark where that is far.

    Args:
        marks: all marks of the picture, those without a name too.
        edge: how far to the right names may reach.
        lines: level and upright lines, as (x1, y1, x2, y2), which names avoid where there is room nearby.
    """
    drawn = [_Box(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)) for x1, y1, x2, y2 in lines]
    names: list[_Box] = []
    taken = [
        _Box(m.x - m.radius - 1, m.y - m.radius - 1, m.x + m.radius + 1, m.y + m.radius + 1) for m in marks
    ]
    frame = _Box(LEFT + 1, TOP - 8, edge, HEIGHT - BOTTOM - 1)
    order = {"main": 0, "base": 1, "random": 2}
    parts = []
    for mark in sorted((m for m in marks if m.text), key=lambda m: order.get(m.style, 3)):
        name = short(mark.text)
        free = [box for box in _candidates(mark, name) if _is_free(box, taken, frame)]
        if not free:
            continue  # its title, which a pointer shows, has the name
        # Near is better than far, but not through another name, nor with a line through its letters.
        far = [
            _distance(mark, box)
            + 40 * _crosses(mark, box, names)
            + 60 * any(map(_Box(box.left, box.top + 3, box.right, box.bottom - 3).meets, drawn))
            for box in free
        ]
        found = free[far.index(min(far))]
        taken.append(found)
        names.append(found)
        if _distance(mark, found) > mark.radius + 8:
            parts.append(line(mark.x, mark.y, *_nearest(mark, found), f"leader {mark.style}"))
        parts.append(text(found.left + 1, found.bottom - 3, name, f"label {mark.style}", "start"))
    return Markup("").join(parts)


def _nearest(mark: Mark, box: _Box) -> tuple[float, float]:
    return min(max(mark.x, box.left), box.right), min(max(mark.y, box.top), box.bottom)


def _distance(mark: Mark, box: _Box) -> float:
    return math.dist(_nearest(mark, box), (mark.x, mark.y))


def _crosses(mark: Mark, box: _Box, names: Sequence[_Box]) -> bool:
    """Whether the line from a mark to its name would run through another name."""
    x, y = _nearest(mark, box)
    points = [(mark.x + (x - mark.x) * step / 10, mark.y + (y - mark.y) * step / 10) for step in range(1, 11)]
    return any(
        name.left < px < name.right and name.top < py < name.bottom for px, py in points for name in names
    )


def _candidates(mark: Mark, name: str) -> Iterable[_Box]:
    width = _CHARACTER * len(name) * (1.08 if mark.style == "main" else 1) + 2
    for distance in _DISTANCES:
        away = mark.radius + distance - 5
        for turn in _TURNS:
            turn_x, turn_y = math.cos(turn), math.sin(turn)
            x, y = mark.x + turn_x * away, mark.y + turn_y * (away + LINE / 2)
            left = x - width / 2 + width / 2 * max(-1.0, min(1.0, 1.5 * turn_x))
            yield _Box(left, y - LINE / 2, left + width, y + LINE / 2)


def _is_free(box: _Box, taken: Sequence[_Box], frame: _Box) -> bool:
    is_inside = (
        box.left >= frame.left
        and box.right <= frame.right
        and box.top >= frame.top
        and box.bottom <= frame.bottom
    )
    return is_inside and not any(box.meets(other) for other in taken)


def one_name_for_draws(rates: Sequence[tuple[str, float]], styles: Styles) -> dict[str, str]:
    """Name a cloud of random draws once, at the draw in the middle."""
    draws = sorted((rate, name) for name, rate in rates if styles.get(name, "other") == "random")
    if len(draws) < 2:
        return {}
    middle = draws[len(draws) // 2][1]
    return {name: f"{len(draws)} random draws" if name == middle else "" for _, name in draws}


def spread(heights: Sequence[float]) -> list[float]:
    """Move ascending heights apart by a line at least, and into the frame."""
    apart: list[float] = []
    for height in heights:
        apart.append(max(height, apart[-1] + LINE if apart else TOP + 9))
    floor = float(HEIGHT - BOTTOM - 4)
    for index in reversed(range(len(apart))):
        apart[index] = min(apart[index], floor)
        floor = apart[index] - LINE
    return apart


def short(name: str, most: int = _LONGEST) -> str:
    """Return a name that fits a picture; the mark's title has the whole."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    """Return a line."""
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        style, x1, y1, x2, y2
    )


def text(x: float, y: float, content: str, style: str, anchor: str) -> Markup:
    """Return a line of text."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        style, x, y, anchor, visible(content)
    )


def dot(x: float, y: float, style: str, radius: float = 5, title: str = "") -> Markup:
    """Return a point; a pointer shows its title."""
    inner = Markup("<title>{}</title>").format(visible(title)) if title else ""
    return Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{:g}">{}</circle>').format(
        style, x, y, radius, inner
    )


def svg(title: str, parts: Sequence[Markup], height: float = HEIGHT, width: float = WIDTH) -> Markup:
    """Return a picture with the title that readers who cannot see it are told."""
    return Markup('<svg class="chart" viewBox="0 0 {} {:.0f}" role="img"><title>{}</title>{}</svg>').format(
        width, height, visible(title), Markup("").join(parts)
    )
