"""The GitHub action: what it runs exists, and no input becomes part of a script."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from harness.cli.main import main

ACTION = yaml.safe_load((Path(__file__).parents[1] / "action.yml").read_text(encoding="utf-8"))
SCRIPTS = "\n".join(step["run"] for step in ACTION["runs"]["steps"])


def test_scripts_hold_no_expression_so_that_an_input_cannot_become_code():
    assert "${{" not in SCRIPTS


def test_every_input_is_used_and_has_a_description():
    assert all(row["description"] for row in ACTION["inputs"].values())
    used = set(re.findall(r"inputs\.([a-z-]+)", str(ACTION["runs"])))
    assert used == set(ACTION["inputs"])


def test_the_options_that_it_gives_to_harness_exist(capsys):
    for command in ("run", "check"):
        main([command, "--help"])
        known = capsys.readouterr().out
        lines = SCRIPTS.replace("\\\n", " ").splitlines()
        given = " ".join(line for line in lines if f"harness {command} " in line)
        for option in re.findall(r"(?<![\w-])--[a-z-]+", given):
            assert option in known
