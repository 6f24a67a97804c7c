"""A check as SARIF 2.1.0, for code scanning: a rule a gate, and a result for each; those that pass are of kind pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import harness
from harness.gate.check import Checked
from harness.gate.decide import Decision
from harness.report.words import visible
from harness.store.files import write_json

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# kind and level of a result. SARIF has kind "open" for what could not be decided, with no level: viewers hide it, so
# an undecided gate is a warning.
_KINDS = {"PASS": ("pass", "none"), "FAIL": ("fail", "error"), "INCONCLUSIVE": ("fail", "warning")}


def sarif_log(checked: Checked) -> dict[str, Any]:
    """Return the log; every result points at the gate's line in the gates file."""
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "harness check",
                        "version": harness.__version__,
                        "rules": [
                            {"id": _id(one), "shortDescription": {"text": visible(one.required)}}
                            for one in checked.decisions
                        ],
                    }
                },
                "invocations": [{"executionSuccessful": True, "exitCode": checked.exit_code}],
                "results": [_result(checked, index, one) for index, one in enumerate(checked.decisions)],
            }
        ],
    }


def write_sarif(checked: Checked, path: Path) -> None:
    """Write the log as a whole file."""
    write_json(path, sarif_log(checked))


def _result(checked: Checked, index: int, decision: Decision) -> dict[str, Any]:
    kind, level = _KINDS[decision.verdict]
    text = f"{decision.verdict}: {decision.variant}: {decision.required}; seen: {decision.seen}"
    return {
        "ruleId": _id(decision),
        "ruleIndex": index,
        "kind": kind,
        "level": level,
        "message": {"text": visible(text)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(checked.gates)},
                    "region": {"startLine": _line(checked.gates, decision.gate.name)},
                }
            }
        ],
        "properties": {"verdict": decision.verdict, "value": decision.value, "bound": decision.bound},
    }


def _id(decision: Decision) -> str:
    return visible(decision.gate.name)


def _uri(path: Path) -> str:
    """Return the file as code scanning wants it: relative to where the command ran, if it lies below."""
    absolute, here = path.resolve(), Path.cwd().resolve()
    if absolute.is_relative_to(here):
        from urllib.parse import quote

        return quote(absolute.relative_to(here).as_posix())
    return absolute.as_uri()


def _line(path: Path, name: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if "name:" in line and name in line), 1)
