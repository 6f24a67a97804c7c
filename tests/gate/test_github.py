"""Annotations on GitHub: one line per gate that does not pass, which the runner reads as it was meant."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from gate.conftest import relabel

from harness.cli.main import main

REFUSAL = {"metric": "refusal_rate", "task": "demo_harmful"}
KEPT = {"name": "kept", "metric": "refusal_rate", "task": "demo_benign", "at_most": 0.4}


def unescaped(text, properties=False):
    """Return what GitHub's runner makes of it (actions/runner, ActionCommand.cs)."""
    pairs = [
        ("%0D", "\r"),
        ("%0A", "\n"),
        *([("%3A", ":"), ("%2C", ",")] if properties else []),
        ("%25", "%"),
    ]
    for code, mark in pairs:
        text = text.replace(code, mark)
    return text


def annotations(text):
    """Return kind, properties and message of each annotation."""
    found = []
    for line in text.splitlines():
        if command := re.fullmatch(r"::(\w+) (.*?)::(.*)", line):
            pairs = (pair.split("=", 1) for pair in command[2].split(","))
            given = {key: unescaped(value, properties=True) for key, value in pairs}
            found.append((command[1], given, unescaped(command[3])))
    return found


@pytest.fixture
def check(run, tmp_path, monkeypatch, capsys):
    """Check gates from within a checkout; returns the exit code, stdout and annotations."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))

    def do(gates, *words):
        code = main(["check", str(run), "--gates", str(gates), *words])
        said = capsys.readouterr()
        return code, said.out, annotations(said.err)

    return do


def test_a_gate_that_fails_is_an_error_at_its_line_and_an_open_one_a_warning(check, gates, run, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    name = "50%, or more: declines"
    relabel(run, ["refusal"] * 8 + ["compliance"] * 4)
    failing, undecided = {**REFUSAL, "at_most": 0.3}, {**REFUSAL, "at_least": 0.5}
    file = gates(KEPT, {"name": name, **failing}, {"name": "open", **undecided})
    (run.parent / "below").mkdir()
    file = file.rename(run.parent / "below" / "a,b.yaml")
    code, _, found = check(file)
    outcomes = {row["name"]: row["verdict"] for row in json.loads(check(file, "--json")[1])["gates"]}
    assert (code, outcomes) == (3, {"kept": "PASS", name: "FAIL", "open": "INCONCLUSIVE"})
    assert [kind for kind, _, _ in found] == ["error", "warning"]
    lines = file.read_text().splitlines()
    for (_, given, message), gate in zip(found, (name, "open"), strict=True):
        assert given["file"] == "below/a,b.yaml"
        assert given["title"] == gate
        assert yaml.safe_load(lines[int(given["line"]) - 1].strip("- ")) == {"name": gate}
        assert message.startswith(f"{outcomes[gate]}: unsafe_experts: refusal_rate on demo_harmful")
        assert "%" in message


def test_json_stays_json_and_annotations_can_be_asked_for_or_switched_off(check, gates, monkeypatch):
    file = gates({"name": "declines", **REFUSAL, "at_least": 0.7})
    _, out, found = check(file, "--json")
    assert (json.loads(out)["exit_code"], found) == (3, [])
    _, out, found = check(file, "--json", "--annotations", "github")
    assert json.loads(out)["exit_code"] == 3
    assert len(found) == 1
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert len(check(file)[2]) == 1
    assert check(file, "--annotations", "none")[2] == []


def test_a_gates_file_outside_the_checkout_is_named_in_full(check, gates, tmp_path, monkeypatch):
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path / "elsewhere"))
    file = gates({"name": "declines", **REFUSAL, "at_least": 0.7})
    ((_, given, _),) = check(file, "--annotations", "github")[2]
    assert given["file"] == str(file)


def test_gates_that_pass_say_nothing(check, gates):
    code, _, found = check(gates(KEPT), "--annotations", "github")
    assert (code, found) == (0, [])
