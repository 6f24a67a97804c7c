"""A variant shows the fields and settings that concern it, and no others."""

from __future__ import annotations

import json

import pytest

from harness.cli.main import main
from harness.interventions.spec import find_variant, list_variants
from harness.report.boards.boards import _settings_of


def test_only_draws_say_what_they_are_matched_by():
    matched = {name for name, spec in list_variants().items() if "match" in spec.shown()}
    assert matched == {"random_experts"}


@pytest.mark.parametrize("name", sorted(list_variants()))
def test_nothing_that_is_open_is_shown(name, capsys):
    assert main(["baselines", "show", name]) == 0
    printed = capsys.readouterr().out
    assert "null" not in printed
    assert "[]" not in printed
    assert main(["baselines", "show", name, "--json"]) == 0
    assert None not in json.loads(capsys.readouterr().out).values()


@pytest.mark.parametrize(
    ("name", "concerned"),
    [
        ("base", {"generation.max_new_tokens"}),
        ("system_prompt", {"generation.max_new_tokens"}),
        (
            "steer",
            {"generation.max_new_tokens", "selection.top_k", "selection.threshold", "selection.control"},
        ),
        # It has a limit of its own, and none of the run's holds; the control tasks are the run's.
        ("esft", {"generation.max_new_tokens", "selection.control", "training.epochs"}),
    ],
)
def test_settings_stand_beside_the_variants_that_they_concern(name, concerned):
    some = {
        "generation.max_new_tokens",
        "selection.top_k",
        "selection.threshold",
        "selection.method",
        "selection.control",
        "training.epochs",
    }
    spec = find_variant(name)
    named = _settings_of(spec.model_dump(mode="json"), name) & some
    assert named - {"selection.method"} == concerned
    assert ("selection.method" in named) == (name == "steer")
