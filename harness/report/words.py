"""Figures and names as a reader sees them, the same in the terminal, in Markdown and in HTML."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.base.visible import visible as visible


def hundredths(fraction: float) -> str:
    """Return a fraction of 1 in percent, without the sign.

    Examples:
        >>> hundredths(0.975), hundredths(-0.0001)
        ('97.5', '0.0')
    """
    return f"{fraction * 100:z.1f}"


def interval(low: float | None, high: float | None, show: Callable[[float], str] = hundredths) -> str:
    """Return both ends of an interval, or "" where it has none.

    Examples:
        >>> interval(0.25, 0.5), interval(0.25, 0.5, str), interval(None, None)
        ('25.0 to 50.0', '0.25 to 0.5', '')
    """
    return "" if low is None or high is None else f"{show(low)} to {show(high)}"


def span(low: float | None, high: float | None, show: Callable[[float], str] = hundredths) -> str:
    """Return both ends of an interval for a table, or "" where it has none.

    Examples:
        >>> span(0.25, 0.5), span(-2, 1, str), span(None, None)
        ('25.0–50.0', '-2 to 1', '')
    """
    text = interval(low, high, show)
    return text if "-" in text else text.replace(" to ", "–")


def percent(fraction: float | None) -> str:
    """Return a fraction of 1 in percent, or "no value".

    Examples:
        >>> percent(0.05)
        '5.0%'
    """
    return "no value" if fraction is None else f"{hundredths(fraction)}%"


def signed(fraction: float) -> str:
    """Return a difference of two fractions in percentage points, with its sign.

    Examples:
        >>> signed(0.925), signed(-0.004), signed(0.0)
        ('+92.5', '-0.4', '0.0')
    """
    text = hundredths(fraction)
    return text if text == "0.0" or text.startswith("-") else f"+{text}"


def number(figure: float) -> str:
    """Return a plain number with four significant digits, or as many as it has before the point up to a million.

    Examples:
        >>> number(12.345), number(0.00001), number(48210.7), number(1.9e22)
        ('12.35', '1e-5', '48,211', '1.9e22')
    """
    if 9_999.5 <= abs(figure) < 999_999.5:
        return f"{figure:,.0f}"
    digits, e, exponent = f"{figure:.4g}".partition("e")
    return f"{digits}{e}{int(exponent)}" if e else digits


def signed_number(figure: float) -> str:
    """Return a difference of two plain numbers with its sign.

    Examples:
        >>> signed_number(2.5), signed_number(-1.71e22), signed_number(0.0)
        ('+2.5', '-1.71e22', '+0')
    """
    text = number(figure)
    return text if text.startswith("-") else f"+{text}"


def rounded_up(fraction: float) -> str:
    """Return a bound in percentage points, rounded up, so that no smaller one is promised than was shown.

    Examples:
        >>> rounded_up(0.0381), rounded_up(0.05)
        ('3.9', '5')
    """
    return f"{math.ceil(round(fraction * 1000, 6)) / 10:g}"


def p_is(p: float) -> str:
    """Return "p = 0.41" or "p < 0.001", with digits enough to see on which side of 0.05 it lies.

    Examples:
        >>> p_is(0.0496), p_is(0.41), p_is(1e-9)
        ('p = 0.0496', 'p = 0.41', 'p < 0.001')
    """
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.3g}"


def listing(names: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Examples:
        >>> duration(4.04), duration(75), duration(7300)
        ('4.0 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"


def how_many(log10: float, is_counted: bool) -> str:
    """Return a number given by its decimal logarithm, exactly where it was counted and is below a million.

    Examples:
        >>> how_many(3, True), how_many(7.8, True), how_many(45.2, False)
        ('1,000', 'about 63 million', 'about 10^45')
    """
    if log10 < 6:
        return f"{'' if is_counted else 'about '}{round(10**log10):,}"
    if log10 >= 12:
        return f"about 10^{log10:.0f}"
    power, name = (6, "million") if log10 < 9 else (9, "billion")
    return f"about {float(f'{10 ** (log10 - power):.2g}'):g} {name}"


def in_a_line(settings: Mapping[str, Any]) -> str:
    """Return settings as a line to read, without those that say nothing.

    Examples:
        >>> in_a_line({"strategy": "greedy", "max_new_tokens": {"a": 32, "b": 32}, "opening": "Sure, here is", "k": {}})
        'strategy=greedy, max_new_tokens=32, opening="Sure, here is"'
    """
    parts = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            values = {str(each) for each in value.values()}
            value = (
                values.pop() if len(values) == 1 else " ".join(f"{key}:{each}" for key, each in value.items())
            )
        elif isinstance(value, str) and " " in value:
            value = f'"{value}"'
        if value not in ("", None):
            parts.append(f"{name}={value}")
    return ", ".join(parts)
