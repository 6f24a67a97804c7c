"""A run in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report import leaderboard
from harness.report.leaderboard import Column, Effect, comparison, effect_of
from harness.report.words import listing, visible
from harness.runs.rows import BASE
from harness.runs.summary import Summary


def headline(summary: Summary) -> str:
    """Return what the tests say of the intervention: gain, cost, and whether the choice of experts matters."""
    name = summary.intervention
    variant = summary.variants.get(name)
    if variant is None or variant.skipped is not None:
        return visible(f"{name} was not evaluated.")
    if name == BASE:
        return "The unchanged model, with nothing to compare it with."
    columns = leaderboard.deciding_columns(summary)
    clauses = [
        clause
        for clause in (
            _clause(
                summary, columns, "harmful", "refuses significantly more than base", "higher", "LESS", "lower"
            ),
            _clause(summary, columns, "benign", "falsely refuses more", "higher", "less", "lower"),
            _capability(summary, columns),
        )
        if clause
    ]
    broken = [each for each, found in summary.variants.items() if found.frozen_unchanged is False]
    warning = f"The frozen proof FAILED for {listing(broken)}. " if broken else ""
    return visible(
        f"{warning}{name} {listing(clauses) or 'was tested on nothing'}{_random(summary, columns)}."
    )


def _clause(
    summary: Summary, columns: Sequence[Column], kind: str, what: str, good: Effect, other: str, bad: Effect
) -> str:
    effects = _effects(summary, [column for column in columns if column.kind == kind], BASE)
    if not effects:
        return ""
    opposite = f", {other} on {effects.count(bad)}" if bad in effects else ""
    return f"{what} on {effects.count(good)} of {_tasks(len(effects), kind)}{opposite}"


def _capability(summary: Summary, columns: Sequence[Column]) -> str:
    of = [column for column in columns if column.kind == "capability"]
    worse = sum(
        effect == ("lower" if column.more_is_better else "higher")
        for column, effect in zip(of, _effects(summary, of, BASE), strict=True)
    )
    return f"loses capability on {worse} of {_tasks(len(of), '')}" if of else ""


def _random(summary: Summary, columns: Sequence[Column]) -> str:
    draws = summary.draws()
    of = [column for column in columns if column.kind == "harmful"]
    effects = [effect for draw in draws for effect in _effects(summary, of, draw)]
    if not effects:
        return ""
    return (
        f"; against {len(draws)} random draw{'' if len(draws) == 1 else 's'} of experts it refuses more in "
        f"{effects.count('higher')} of {len(effects)} tests and less in {effects.count('lower')}"
    )


def _effects(summary: Summary, columns: Sequence[Column], against: str) -> list[Effect]:
    return [effect_of(comparison(summary, summary.intervention, against, column)) for column in columns]


def _tasks(count: int, kind: str) -> str:
    return f"{count} {kind}{' ' if kind else ''}task{'' if count == 1 else 's'}"
