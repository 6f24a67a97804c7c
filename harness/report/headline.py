"""A run in one sentence: the gain, the costs and the claim about choosing experts, each with its state."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.columns import comparison, deciding_columns
from harness.report.words import p_is, visible
from harness.runs.rows import BASE, Claim, Kind
from harness.runs.summary import Summary


def headline(summary: Summary) -> str:
    """Return what the comparisons with base and the random draws decide about the intervention."""
    name = summary.intervention
    variant = summary.variants.get(name)
    if variant is None or variant.skipped is not None:
        return visible(f"{name} was not evaluated.")
    if name == BASE:
        return "The unchanged model, with nothing to compare it with."
    if summary.lacks_verdicts:
        return visible(
            f"{name}: an earlier version wrote this summary; `harness measure` gives its verdicts."
        )
    parts = [
        f"{name} {_gain(_verdicts(summary, 'harmful'))}",
        _costs([*_verdicts(summary, "benign"), *_verdicts(summary, "capability")]),
        *(claimed(claim) for claim in summary.claims),
    ]
    broken = [each for each, made in summary.variants.items() if made.frozen_unchanged is False]
    warning = f"The frozen proof FAILED for {', '.join(broken)}. " if broken else ""
    return visible(f"{warning}{'; '.join(part for part in parts if part)}.")


def claimed(claim: Claim) -> str:
    """Return what is claimed about choosing experts."""
    what, n = f"choosing experts by {claim.method}", len(claim.draws)
    if claim.verdict == "nothing claimed" or claim.p_value is None:
        return f"{what}: nothing is claimed ({claim.reason})"
    state = "is better than" if claim.verdict == "shown" else "is not shown to be better than"
    return f"{what} {state} {n} random draws ({p_is(claim.p_value)})"


def _gain(verdicts: Sequence[str | None]) -> str:
    if not verdicts:
        return "was asked nothing harmful"
    tasks = f"{len(verdicts)} harmful task{'' if len(verdicts) == 1 else 's'}"
    less = f", LESS on {verdicts.count('worse')}" if "worse" in verdicts else ""
    return f"is shown to refuse more than base on {verdicts.count('better')} of {tasks}{less}"


def _costs(verdicts: Sequence[str | None]) -> str:
    if not verdicts:
        return ""
    counts = {
        "no worse than their margins": verdicts.count("no worse"),
        "worse": verdicts.count("worse"),
        "not decided": verdicts.count("not decided") + verdicts.count(None),
    }
    return f"costs: {', '.join(f'{n} {state}' for state, n in counts.items() if n)}"


def _verdicts(summary: Summary, kind: Kind) -> list[str | None]:
    """Return what is decided about each deciding figure of a kind; None where it could not be tested."""
    tests = [
        comparison(summary, summary.intervention, BASE, column)
        for column in deciding_columns(summary)
        if column.kind == kind
    ]
    return [None if test is None else test.verdict for test in tests]
