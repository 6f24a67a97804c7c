"""A check as SARIF 2.1.0, for code scanning: a rule for each gate, and a result for each that does not pass.

SARIF has results of kind "pass" and "open", but GitHub's code scanning reads no kind: it would raise an alert for
every gate that passes. So a gate that passes is a rule without a result, which also closes its earlier alert.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import harness
from harness.gate.check import Checked
from harness.gate.decision import Decision, Outcome
from harness.gate.lines import gate_lines
from harness.report.words import visible

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: dict[Outcome, str] = {"FAIL": "error", "INCONCLUSIVE": "warning"}


def sarif_log(checked: Checked) -> dict[str, Any]:
    """Return the log; every result points at the gate's line in the gates file."""
    lines = gate_lines(checked.gates)
    uri = _uri(checked.gates)
    rules = [
        {"id": _id(one), "shortDescription": {"text": visible(one.required)}} for one in checked.decisions
    ]
    run = {
        "tool": {"driver": {"name": "harness check", "version": harness.__version__, "rules": rules}},
        "invocations": [{"executionSuccessful": True, "exitCode": checked.exit_code}],
        "results": [
            _result(index, one, uri, lines.get(one.gate.name, 1))
            for index, one in enumerate(checked.decisions)
            if one.outcome != "PASS"
        ],
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(index: int, decision: Decision, uri: str, line: int) -> dict[str, Any]:
    text = f"{decision.outcome}: {decision.variant}: {decision.required}; seen: {decision.seen}"
    place = {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}
    return {
        "ruleId": _id(decision),
        "ruleIndex": index,
        "level": _LEVELS[decision.outcome],
        "message": {"text": visible(text)},
        "locations": [{"physicalLocation": place}],
        "properties": {"verdict": decision.outcome, "value": decision.value, "bound": decision.bound},
    }


def _id(decision: Decision) -> str:
    return visible(decision.gate.name)


def _uri(path: Path) -> str:
    """Return the file as code scanning wants it: relative to where the command ran, if it lies below."""
    absolute, here = path.resolve(), Path.cwd().resolve()
    if absolute.is_relative_to(here):
        return quote(absolute.relative_to(here).as_posix())
    return absolute.as_uri()
