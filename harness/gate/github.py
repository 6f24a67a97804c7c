"""A check as annotations of a GitHub workflow: one line per gate that does not pass, shown at the gate's line.

GitHub's runner reads them from standard output and standard error alike
(https://docs.github.com/actions/reference/workflow-commands-for-github-actions).
"""

from __future__ import annotations

from pathlib import Path

from harness.gate.check import Checked
from harness.gate.decision import Decision, Outcome
from harness.gate.lines import gate_lines
from harness.report.words import visible

_COMMANDS: dict[Outcome, str] = {"FAIL": "error", "INCONCLUSIVE": "warning"}


def github_annotations(checked: Checked, root: Path) -> list[str]:
    """Return workflow commands such as `::error file=gates.yaml,line=3,title=declines::FAIL: ...`.

    Args:
        checked: the check.
        root: the folder of the repository, which GitHub's file names are relative to.
    """
    lines = gate_lines(checked.gates)
    file = checked.gates.resolve()
    if file.is_relative_to(root.resolve()):
        file = file.relative_to(root.resolve())
    return [
        _annotation(one, file.as_posix(), lines.get(one.gate.name, 1))
        for one in checked.decisions
        if one.outcome in _COMMANDS
    ]


def _annotation(decision: Decision, file: str, line: int) -> str:
    properties = {"file": file, "line": str(line), "title": visible(decision.gate.name)}
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    text = f"{decision.outcome}: {decision.variant}: {decision.required}; seen: {decision.seen}"
    return f"::{_COMMANDS[decision.outcome]} {given}::{_data(visible(text))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
