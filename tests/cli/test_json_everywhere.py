"""Every command whose result is to be read prints it as JSON too."""

from __future__ import annotations

import json

import pytest
import typer.main

from harness.cli.main import app, main

# What has no --json, and why.
WITHOUT = {
    "tasks path": "prints one path, for use in other commands: $(harness tasks path)",
    "judges label": "serves a page until it is stopped; the labels are in the file that it names",
}


def leaves(command, path=()):
    below = getattr(command, "commands", {})
    if not below:
        yield " ".join(path), command
    for name in below:
        yield from leaves(below[name], (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_every_command_takes_json_or_says_why_not():
    without = {
        name
        for name, command in COMMANDS.items()
        if "--json" not in {option for parameter in command.params for option in parameter.opts}
    }
    assert without == WITHOUT.keys()


def test_the_tree_has_the_commands_that_the_reference_lists():
    assert {"run", "doctor", "models show", "runs list", "judges evaluate"} <= COMMANDS.keys()
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (["models", "show", "demo"], {"name": "demo", "experts_per_layer": 32, "moe_layers": [0, 1, 2, 3]}),
        (["baselines", "show", "steer"], {"name": "steer", "experts": "selected"}),
        (["tasks", "show", "quick"], {"kind": "capability"}),
    ],
)
def test_json_is_one_object_with_the_facts(words, holds, capsys):
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert holds.items() <= printed.items()
