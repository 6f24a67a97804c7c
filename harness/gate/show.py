"""A check for people: a table in the terminal, and Markdown for pull requests."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.gate.check import Checked
from harness.gate.decision import Decision, Outcome
from harness.gate.schema import REFERENCE
from harness.report.markdown import code, escape, grid
from harness.report.words import listing, visible

MOST_FLIPS = 20

_STYLES: dict[Outcome, str] = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}
_MARKS: dict[Outcome, str] = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔"}


def conclusion(checked: Checked) -> str:
    """Return the outcome of all gates in a sentence."""
    n, waiting = len(checked.decisions), len(checked.not_decided)
    gates = f"{n} gate{'' if n == 1 else 's'}{f' ({waiting} more not decided)' if waiting else ''}"
    failed, undecided = (
        [decision.gate.name for decision in checked.decisions if decision.outcome == outcome]
        for outcome in ("FAIL", "INCONCLUSIVE")
    )
    if failed:
        rest = f"; inconclusive: {listing(undecided)}" if undecided else ""
        return f"FAIL: {len(failed)} of {gates}: {listing(failed)}{rest}"
    if undecided:
        return f"INCONCLUSIVE: {len(undecided)} of {gates}, none fails: {listing(undecided)}"
    return f"PASS: {gates}"


def _notes(checked: Checked) -> Iterator[str]:
    """Yield what else a reader must know."""
    if checked.not_decided:
        yield f"Not decided, since the reference did not exist yet: {listing(checked.not_decided)}."
    if checked.written is not None:
        yield f"Reference written: {checked.written}"


def print_check(checked: Checked, console: Console | None = None) -> None:
    """Print the gates, what flipped against the reference, and the outcome."""
    console = console or Console(highlight=False)
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for heading in ("", "gate", "required", "seen"):
        shown.add_column(heading, overflow="fold", no_wrap=not heading)
    for decision in checked.decisions:
        shown.add_row(
            Text(decision.outcome, _STYLES[decision.outcome]),
            Text(visible(decision.gate.name)),
            Text(visible(f"{decision.variant}: {decision.required}")),
            Text(visible(decision.seen)),
        )
    console.print(shown)
    for decision in _flipped(checked):
        console.print(Text(visible(_flips_heading(decision)), "bold"))
        for flip in decision.flips[:MOST_FLIPS]:
            console.print(Text(f"  {visible(flip.id)}: {flip.before} -> {flip.after}"))
        if len(decision.flips) > MOST_FLIPS:
            console.print(Text(f"  and {len(decision.flips) - MOST_FLIPS} more (--json lists all)", "dim"))
    console.print(Text(visible(conclusion(checked)), _STYLES[checked.outcome]))
    for note in _notes(checked):
        console.print(Text(visible(note)))


def markdown(checked: Checked) -> str:
    """Return the same as GitHub's Markdown."""
    rows = [
        [
            f"{_MARKS[decision.outcome]} {decision.outcome}",
            escape(decision.gate.name),
            escape(f"{decision.variant}: {decision.required}"),
            escape(decision.seen),
        ]
        for decision in checked.decisions
    ]
    parts = [f"### {_MARKS[checked.outcome]} {escape(conclusion(checked))}", ""]
    parts += ["| outcome | gate | required | seen |", "| --- | --- | --- | --- |"]
    parts += [f"| {' | '.join(row)} |" for row in rows]
    for decision in _flipped(checked):
        flips = [[code(flip.id), flip.before, flip.after] for flip in decision.flips[:MOST_FLIPS]]
        more = len(decision.flips) - MOST_FLIPS
        parts += ["", f"<details><summary>{escape(_flips_heading(decision))}</summary>", ""]
        parts += [grid(["sample", "before", "now"], flips)]
        parts += ["", f"and {more} more"] if more > 0 else []
        parts += ["", "</details>"]
    confidence = f"each gate by itself with {checked.confidence:.4g} confidence."
    parts += ["", f"Run {code(checked.run_id)}; {confidence}", *map(escape, _notes(checked))]
    return "\n".join(parts) + "\n"


def _flipped(checked: Checked) -> list[Decision]:
    return [decision for decision in checked.decisions if decision.flips]


def _flips_heading(decision: Decision) -> str:
    n, against = len(decision.flips), decision.gate.against
    whom = "the reference" if against == REFERENCE else against
    return f"{n} sample{'' if n == 1 else 's'} flipped against {whom} in {decision.gate.name}"
