"""`harness check` without its command line: read, decide, and update a reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.schema import read_yaml
from harness.gate.decide import decide, overall
from harness.gate.decision import EXIT_CODES, Decision, Outcome
from harness.gate.reference import Reference, find_reference, read_reference, reference_path, update_reference
from harness.gate.samples import GatedRun
from harness.gate.schema import REFERENCE, GateFile


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check came to: every output is made from it, so that all agree.

    Attributes:
        run: the run folder.
        run_id: its own name.
        gates: the gates file.
        confidence: of each gate.
        against: the name of the reference, if gates compared with one.
        decisions: one for each gate decided, in the file's order.
        not_decided: gates that waited for the reference that was being written.
        written: the reference that was written, if one was.
    """

    run: Path
    run_id: str
    gates: Path
    confidence: float
    against: str | None
    decisions: list[Decision]
    not_decided: list[str]
    written: Path | None = None

    @property
    def outcome(self) -> Outcome:
        """Of all gates together."""
        return overall(self.decisions)

    @property
    def exit_code(self) -> int:
        """0 where all pass, 3 where one fails, 4 where none fails and one is inconclusive."""
        return EXIT_CODES[self.outcome]

    def to_json(self) -> dict[str, Any]:
        """Return the result for programs."""
        return {
            "schema_version": 1,
            "run": str(self.run),
            "run_id": self.run_id,
            "gates_file": str(self.gates),
            "confidence": self.confidence,
            "reference": self.against,
            "verdict": self.outcome,
            "exit_code": self.exit_code,
            "gates": [_row(decision) for decision in self.decisions],
            "not_decided": self.not_decided,
            "reference_written": None if self.written is None else str(self.written),
        }


def check(
    run: Path,
    gates: Path,
    against: str | None = None,
    update: str | None = None,
    allow_regression: str | None = None,
) -> Checked:
    """Decide the gates of a file on a run.

    Args:
        run: the run folder; every file in it is checked against its manifest first.
        gates: gates.yaml.
        against: the reference, for gates that compare with one.
        update: a reference to write from this run, if its gates pass and nothing pinned gets worse.
        allow_regression: why the reference may get worse all the same.

    Raises:
        BadInputError: an input cannot be used, or the reference may not be written.
    """
    file = read_yaml(gates, GateFile)
    gated = GatedRun(run)
    path = None if update is None else reference_path(update)
    reference = _reference(file, against, path)
    waiting = [gate.name for gate in file.gates if gate.against == REFERENCE and path and reference is None]
    decisions = [
        decide(gate, gated, reference, file.level) for gate in file.gates if gate.name not in waiting
    ]
    if path is not None:
        failing = [
            f"gate '{one.gate.name}' is {one.outcome}: {one.seen}"
            for one in decisions
            if one.outcome != "PASS"
        ]
        update_reference(path, gated, file, allow_regression, failing)
    return Checked(
        run=run,
        run_id=gated.summary.run_id,
        gates=gates,
        confidence=file.confidence,
        against=None if reference is None else reference.name,
        decisions=decisions,
        not_decided=waiting,
        written=path,
    )


def _reference(file: GateFile, against: str | None, updating: Path | None) -> Reference | None:
    """Return the reference that gates compare with: the one named, or the one to be updated."""
    if against is not None:
        return find_reference(against, file)
    return read_reference(updating) if updating is not None and updating.exists() else None


def _row(decision: Decision) -> dict[str, Any]:
    gate = decision.gate
    return {
        "name": gate.name,
        "verdict": decision.outcome,
        "required": decision.required,
        "seen": decision.seen,
        "variant": decision.variant,
        "task": gate.task,
        "metric": gate.metric,
        "against": gate.against,
        "value": decision.value,
        "bound": decision.bound,
        "n": decision.n,
        "unscored": decision.unscored,
        "flipped": [flip._asdict() for flip in decision.flips],
    }
