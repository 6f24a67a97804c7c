"""A composite action's steps as GitHub's runner does them: expressions, environment, files and exit codes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
_TOKEN = re.compile(r"\s*('(?:[^']|'')*'|&&|\|\||[!=]=|[!()]|[A-Za-z_][\w.-]*)")
_OPERATORS = {"&&": " and ", "||": " or ", "!": " not ", "==": "==", "!=": "!=", "(": "(", ")": ")"}


@dataclass
class Job:
    """What a job came to.

    Attributes:
        codes: the exit code of each step that ran in a shell, by name.
        printed: standard output and error of each.
        used: the steps that other actions do, by name: which, and with what.
        outputs: of the action.
        summary: the step summary.
    """

    codes: dict[str, int] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    used: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""

    @property
    def failed(self) -> bool:
        return any(self.codes.values())


def run_action(
    file: Path,
    workspace: Path,
    inputs: Mapping[str, str],
    github: Mapping[str, Any],
    environment: Mapping[str, str],
    found: Mapping[str, Mapping[str, str]] = {},
    without: tuple[str, ...] = (),
) -> Job:
    """Do the steps of an action file.

    Args:
        file: action.yml.
        workspace: where steps run.
        inputs: given by the workflow; others have their defaults.
        github: the context of that name.
        environment: what steps find in their environment besides what the runner and the action put there.
        found: outputs of steps that other actions do, by id.
        without: names of steps that are left out.
    """
    action = yaml.safe_load(file.read_text(encoding="utf-8"))
    folder = workspace.parent / f"{workspace.name}-runner"
    folder.mkdir(exist_ok=True)
    steps: dict[str, Any] = {}
    contexts: dict[str, Any] = {"github": {**github, "action_path": str(file.parent)}, "steps": steps}
    contexts["inputs"] = {
        name: inputs.get(name, _text(row.get("default", ""), contexts, False))
        for name, row in action["inputs"].items()
    }
    assert set(inputs) <= set(action["inputs"])
    job = Job()
    for number, step in enumerate(action["runs"]["steps"]):
        condition = str(step.get("if", "success()")).strip()
        condition = _EXPRESSION.sub(lambda inner: inner[1], condition)
        if not re.search(r"\b(success|failure|cancelled|always)\(\)", condition):
            condition = f"success() && ({condition})"
        if step["name"] in without or not _value(condition, contexts, job.failed):
            continue
        written: Mapping[str, str] = found.get(step.get("id", ""), {})
        if "uses" in step:
            given = {key: _text(value, contexts, job.failed) for key, value in step["with"].items()}
            job.used[step["name"]] = (step["uses"], given)
        else:
            output, summary, script = (folder / f"{number}.{kind}" for kind in ("out", "md", "sh"))
            for path in (output, summary):
                path.write_text("")
            script.write_text(step["run"], encoding="utf-8")
            own = {key: _text(value, contexts, job.failed) for key, value in step.get("env", {}).items()}
            runner = {
                "GITHUB_ACTIONS": "true",
                "GITHUB_WORKSPACE": str(workspace),
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(summary),
                "RUNNER_TEMP": str(folder),
                "RUNNER_OS": "Linux",
                "RUNNER_ARCH": "X64",
            }
            assert step["shell"] == "bash"
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
                cwd=workspace,
                env={**environment, **runner, **own},
                capture_output=True,
                text=True,
                check=False,
            )
            job.codes[step["name"]] = done.returncode
            job.printed[step["name"]] = done.stdout + done.stderr
            job.summary += summary.read_text(encoding="utf-8")
            lines = output.read_text(encoding="utf-8").splitlines()
            written = dict(line.split("=", 1) for line in lines)
        steps[step.get("id", step["name"])] = {"outputs": written}
    job.outputs = {name: _text(row["value"], contexts, job.failed) for name, row in action["outputs"].items()}
    return job


def _text(value: Any, contexts: Mapping[str, Any], failed: bool) -> str:
    """Return a value of the file with its expressions filled in."""
    return _EXPRESSION.sub(lambda inner: _shown(_value(inner[1], contexts, failed)), _shown(value))


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(expression: str, contexts: Mapping[str, Any], failed: bool) -> Any:
    """Return what an expression without the braces comes to."""
    functions: dict[str, Callable[[], bool]] = {
        "success": lambda: not failed,
        "failure": lambda: failed,
        "cancelled": lambda: False,
        "always": lambda: True,
    }
    words, place, text = [], 0, expression.strip()
    while place < len(text):
        token = _TOKEN.match(text, place)
        assert token, f"not understood: {text[place:]}"
        place, word = token.end(), token[1]
        if word in _OPERATORS:
            words.append(_OPERATORS[word])
        elif word.startswith("'"):
            words.append(repr(word[1:-1].replace("''", "'")))
        elif word in functions:
            words.append(f"functions[{word!r}]")
        else:
            words.append(repr(_looked_up(word, contexts)))
    return eval("".join(words), {"functions": functions})


def _looked_up(name: str, contexts: Mapping[str, Any]) -> Any:
    value: Any = contexts
    for part in name.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value
