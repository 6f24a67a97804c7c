"""A run in one sentence."""

from __future__ import annotations

from harness.report.leaderboard import comparison, deciding_columns, effect_of
from harness.report.words import listing, visible
from harness.runs.rows import BASE, Kind
from harness.runs.summary import Summary


def headline(summary: Summary) -> str:
    """Return what the tests say of the intervention: gain, cost, and whether the choice of experts matters."""
    name = summary.intervention
    variant = summary.variants.get(name)
    if variant is None or variant.skipped is not None:
        return visible(f"{name} was not evaluated.")
    if name == BASE:
        return "The unchanged model, with nothing to compare it with."
    clauses = (
        _clause(summary, "harmful", "refuses significantly more than base", True, "LESS"),
        _clause(summary, "benign", "falsely refuses more", False, "less"),
        _clause(summary, "capability", "loses capability", False),
    )
    result = listing([clause for clause in clauses if clause]) or "was tested on nothing"
    broken = [each for each, made in summary.variants.items() if made.frozen_unchanged is False]
    warning = f"The frozen proof FAILED for {listing(broken)}. " if broken else ""
    return visible(f"{warning}{name} {result}{_random(summary)}.")


def _clause(summary: Summary, kind: Kind, what: str, is_gain: bool, opposite: str = "") -> str:
    outcomes = _outcomes(summary, kind, BASE)
    if not outcomes:
        return ""
    tasks = f"{'' if kind == 'capability' else f'{kind} '}task{'' if len(outcomes) == 1 else 's'}"
    others = outcomes.count(not is_gain)
    rest = f", {opposite} on {others}" if opposite and others else ""
    return f"{what} on {outcomes.count(is_gain)} of {len(outcomes)} {tasks}{rest}"


def _random(summary: Summary) -> str:
    draws = summary.draws()
    outcomes = [outcome for draw in draws for outcome in _outcomes(summary, "harmful", draw)]
    if not outcomes:
        return ""
    return (
        f"; against {len(draws)} random draw{'' if len(draws) == 1 else 's'} of experts it refuses more in "
        f"{outcomes.count(True)} of {len(outcomes)} tests and less in {outcomes.count(False)}"
    )


def _outcomes(summary: Summary, kind: Kind, against: str) -> list[bool | None]:
    """Return for each deciding figure of a kind whether the intervention is better; None where no test shows it."""
    return [
        column.is_better(effect_of(comparison(summary, summary.intervention, against, column)))
        for column in deciding_columns(summary)
        if column.kind == kind
    ]
