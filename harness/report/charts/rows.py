"""Figures on one scale: a card's strip, each variant's capability, and the method among its random draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from markupsafe import Markup

from harness.report.cards import Card
from harness.report.charts.drawing import (
    RIGHT,
    WIDTH,
    Chart,
    Key,
    Styles,
    dot,
    line,
    round_ticks,
    short,
    svg,
    text,
)
from harness.report.columns import Cell, Column
from harness.report.leaderboard import Leaderboard
from harness.report.words import listing
from harness.runs.rows import BASE, Claim

_STRIP = 300  # a card is narrower than a page
_NAME = 20  # the longest name beside a row


def strip(card: Card) -> Markup | None:
    """Draw a card's figures: the margin as a band, random draws behind base and the variant with its interval.

    Returns:
        None where the card has no figures.
    """
    column, base, variant = card.column, card.base, card.variant
    if column is None or base is None or variant is None:
        return None
    margin = None if card.test is None else card.test.margin
    loss = 1 if column.better == "lower" else -1
    allowed = None if margin is None else base + loss * margin
    low_end, high_end = _ends(card, base)
    values = [base, variant, *(draw.value for draw in card.draws), low_end, high_end, allowed]
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    if column.is_share and margin is None:
        low, high = 0.0, 1.0
    pad = (high - low) * 0.04 or 0.05
    left, right, ground, height = 8, _STRIP - 8, 18, 40

    def x(value: float) -> float:
        return left + (value - low + pad) / (high - low + 2 * pad) * (right - left)

    parts = []
    if allowed is not None:
        start, end = sorted((x(base), x(allowed)))
        band = Markup('<rect class="margin" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>')
        parts.append(band.format(start, ground - 14, end - start, 22))
    parts.append(line(left, ground + 8, right, ground + 8, "frame"))
    ticks = [
        tick
        for tick in round_ticks(low - pad, high + pad, 5)
        if not column.is_share or -1e-9 <= tick <= 1 + 1e-9
    ]
    for tick in ticks:
        shown = f"{tick * 100:.3g}" if column.is_share else f"{tick:.4g}"
        anchor = "start" if x(tick) < left + 12 else "end" if x(tick) > right - 12 else "middle"
        parts.append(text(x(tick), height, shown, "tick", anchor))
    parts += [
        dot(x(draw.value), ground - 2, "random", 3, f"{draw.variant}: {card.show(draw.value)}")
        for draw in card.draws
    ]
    if low_end is not None and high_end is not None:
        parts.append(line(x(low_end), ground - 2, x(high_end), ground - 2, "bar main"))
    parts.append(dot(x(base), ground - 2, "base hollow", 5.5, f"{BASE}: {card.show(base)}"))
    parts.append(dot(x(variant), ground - 2, "main", 5, f"the intervention: {card.show(variant)}"))
    return svg(
        f"{card.figure}: base {card.show(base)}, the intervention {card.show(variant)}; {card.spread}",
        parts,
        height + 3,
        _STRIP,
    )


def _ends(card: Card, base: float) -> tuple[float | None, float | None]:
    """Return the interval of the change, from base's figure, within what a share can be."""
    test = card.test
    if test is None or test.low is None or test.high is None:
        return None, None
    low, high = base + test.low, base + test.high
    is_share = card.column is not None and card.column.is_share
    return (max(0.0, low), min(1.0, high)) if is_share else (low, high)


def capability(board: Leaderboard, column: Column, styles: Styles) -> Chart | None:
    """Draw each variant's capability with its interval, base's as a line through all; draws share a row.

    Returns:
        None where no variant has a value.
    """
    place = board.columns.index(column)
    cells = {
        row.variant: row.cells[place]
        for row in board.rows
        if row.cells and row.cells[place].value is not None
    }
    if not cells:
        return None
    draws = [name for name in cells if styles.get(name, "other") == "random"]
    rows: list[tuple[str, list[str]]] = [
        (name, [name]) for name in cells if name not in draws or len(draws) < 2
    ]
    if len(draws) > 1:
        rows.append((f"{len(draws)} random draws", draws))
    ends = [end for cell in cells.values() for end in (cell.low, cell.value, cell.high) if end is not None]
    low, high = min(ends), max(ends)
    margin = (high - low) * 0.06 or 0.05
    low, high = low - margin, high + margin
    left, step = 146, 22
    height = 44 + step * len(rows)

    def x(figure: float) -> float:
        return left + (figure - low) / (high - low) * (WIDTH - left - RIGHT)

    parts: list[Markup] = []
    for tick in round_ticks(low, high, 5):
        if not column.is_share or tick <= 1 + 1e-9:
            shown = f"{tick * 100:.3g}" if column.is_share else f"{tick:.4g}"
            parts.append(line(x(tick), 2, x(tick), height - 40, "grid"))
            parts.append(text(x(tick), height - 24, shown, "tick", "middle"))
    parts.append(text((left + WIDTH) / 2, height - 6, f"{column.name} {column.unit}", "axis", "middle"))
    if BASE in cells:
        base = cells[BASE].value or 0.0
        parts.append(line(x(base), 2, x(base), height - 40, "guide"))
    for index, (name, variants) in enumerate(rows):
        style, cy = styles.get(variants[0], "other"), 12 + index * step
        parts.append(text(left - 8, cy + 4, short(name, _NAME), f"label {style}", "end"))
        parts += _row(x, cy, style, [(each, cells[each]) for each in variants], column)
    return Chart(
        svg(f"Capability on {column.task}, by variant", parts, height),
        f"Capability on {column.task}, with 95% intervals; the dashed line is base.",
    )


def _row(
    x: Callable[[float], float], cy: float, style: str, cells: Sequence[tuple[str, Cell]], column: Column
) -> list[Markup]:
    if len(cells) > 1:
        return [
            dot(x(cell.value), cy, style, 3, f"{name}: {column.show(cell.value)}")
            for name, cell in cells
            if cell.value is not None
        ]
    ((name, cell),) = cells
    value = cell.value or 0.0
    bars = (
        []
        if cell.low is None or cell.high is None
        else [line(x(cell.low), cy, x(cell.high), cy, f"bar {style}")]
    )
    return [*bars, dot(x(value), cy, style, 5, f"{name}: {column.show(value)}")]


def draws(claim: Claim) -> Chart | None:
    """Draw the method's figure and that of every random draw on one scale, equal ones above one another.

    Returns:
        None where there is no draw.
    """
    if claim.value is None or not claim.draws:
        return None
    left, step = 20, 8
    high = max(Counter(round(value, 2) for value in claim.draws.values()).values()) * step
    ground = 34 + high
    height = ground + 44

    def x(figure: float) -> float:
        return left + figure * (WIDTH - 2 * left)

    parts = [line(left, ground, WIDTH - left, ground, "frame")]
    for tick in round_ticks(0, 1):
        parts.append(text(x(tick), ground + 16, f"{tick * 100:.0f}", "tick", "middle"))
    parts.append(text(WIDTH / 2, height - 6, f"{claim.metric}, %", "axis", "middle"))
    above: Counter[float] = Counter()
    for name, value in sorted(claim.draws.items(), key=lambda draw: draw[1]):
        place = round(value, 2)
        parts.append(dot(x(value), ground - 8 - step * above[place], "random", 3.5, name))
        above[place] += 1
    own = x(claim.value)
    anchor = "end" if claim.value > 0.5 else "start"
    parts.append(line(own, 20, own, ground, "guide"))
    parts.append(dot(own, 18, "main", 5, claim.variant))
    parts.append(text(own + (-10 if anchor == "end" else 10), 22, short(claim.variant), "label main", anchor))
    use = "" if claim.use_share is None else f", used {claim.use_share:.0%} as much on average"
    return Chart(
        svg(f"{claim.variant} among {len(claim.draws)} random draws of experts", parts, height),
        f"{claim.metric} over {listing(claim.tasks)}. Each small point is one random draw of as many experts per layer"
        f"{use}; unscored answers count against {claim.variant} and for the draws.",
        (Key("main", claim.variant), Key("random", "a random draw of experts")),
    )
