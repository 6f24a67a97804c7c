"""The paired tests of a run as tables: the intervention against base, other variants against base, random draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from harness.report.columns import are_shares, effect_of
from harness.report.table import Head, Item, Table
from harness.report.words import hundredths, interval, number, p_is, rounded_up, signed, signed_number
from harness.runs.rows import BASE, Comparison
from harness.runs.summary import Summary

_HEADS = (
    Head("variant", role="key", is_word=True, is_name=True),
    Head("against", role="key", is_word=True, is_name=True),
    Head("task", "metric, judge", role="key", is_word=True, is_name=True),
    Head("difference", "95% interval"),
    Head("verdict", is_word=True),
    Head("bound", "of margin"),
    Head("adjusted p", "p alone"),
    Head("n", "groups"),
    Head("differ", role="detail"),
    Head("detectable", role="detail"),
    Head("worst case", role="detail"),
    Head("test", is_word=True, role="detail"),
)
_VARIANT, _AGAINST = 0, 1


class Comparisons(NamedTuple):
    """Tests that are shown together, and the families within which their p-values are adjusted."""

    table: Table
    families: tuple[str, ...]


def comparisons(summary: Summary) -> list[Comparisons]:
    """Return every test of the run, those of the intervention against base first."""
    own = summary.intervention
    drawn = {name for name, variant in summary.variants.items() if variant.is_draw}
    groups: dict[str, list[Comparison]] = {f"{own} against {BASE}": []}
    for test in summary.comparisons:
        if test.variant == own and test.against == BASE:
            group = f"{own} against {BASE}"
        elif test.variant == own and test.against in drawn:
            group = f"{own} against single random draws, which decides nothing"
        elif test.variant in drawn:
            group = f"Random draws against {BASE}, which decides nothing"
        else:
            group = "Other variants"
        groups.setdefault(group, []).append(test)
    return [_comparisons(summary, caption, tests) for caption, tests in groups.items() if tests]


def _comparisons(summary: Summary, caption: str, tests: Sequence[Comparison]) -> Comparisons:
    table = Table(caption, _HEADS, tuple(_row(summary, test) for test in tests)).without_empty()
    # What is the same for all stands in the caption.
    same = [place for place in (_VARIANT, _AGAINST) if len({row[place].text for row in table.rows}) == 1]
    families = Counter(test.family for test in tests if test.family is not None)
    return Comparisons(
        table.only([place for place in range(len(table.heads)) if place not in same]),
        tuple(f"{family} ({n} test{'' if n == 1 else 's'})" for family, n in families.items()),
    )


def _row(summary: Summary, test: Comparison) -> tuple[Item, ...]:
    figures = (
        summary.figure(name, test.task, test.metric, test.judge) for name in (test.variant, test.against)
    )
    is_share = are_shares([figure for figure in figures if figure is not None])
    show: Callable[[float], str] = signed if is_share else signed_number
    size: Callable[[float], str] = hundredths if is_share else number
    is_significant = effect_of(test) in ("higher", "lower")
    worst = test.worst_case
    return (
        Item(test.variant),
        Item(test.against),
        Item(test.task or "all tasks", test.metric + (f", {test.judge}" if test.judge else "")),
        Item(
            "" if test.difference is None else show(test.difference),
            interval(test.low, test.high, show),
            tone="strong" if is_significant else "",
            value=test.difference,
        ),
        Item(test.verdict or ""),
        Item(_bound(test)),
        Item(
            _p(test.p_adjusted) or _p(test.p_value), _p(test.p_value) if test.p_adjusted is not None else ""
        ),
        Item(f"{test.n:,}", "" if test.clusters is None else f"{test.clusters:,}"),
        Item("" if test.discordant is None else f"{test.discordant:,}"),
        Item("" if test.minimum_detectable is None else size(test.minimum_detectable)),
        Item(interval(*worst, show) if worst is not None and worst[0] != worst[1] else ""),
        Item(test.test),
    )


def _p(number: float | None) -> str:
    return "" if number is None else p_is(number).removeprefix("p ").removeprefix("= ")


def _bound(test: Comparison) -> str:
    """Return the largest loss that is not ruled out, beside its margin, both in percentage points."""
    if test.bound is None or test.margin is None:
        return ""
    return f"{rounded_up(test.bound)} of {rounded_up(test.margin)}"
