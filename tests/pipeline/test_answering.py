"""Routing in a run folder is that of the run's model and prompts, or the step that reads it stops."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file

from harness.base.files import read_json, write_json
from harness.cli.main import main
from harness.models.load import DEMO_FOLDER
from harness.routing.files import load_counts


@pytest.fixture(scope="module")
def selected(tmp_path_factory):
    """A run folder up to its selection, of a model that differs from the demo in one weight."""
    model, folder = tmp_path_factory.mktemp("model") / "model", tmp_path_factory.mktemp("selected") / "run"
    shutil.copytree(DEMO_FOLDER, model)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] *= 1.5
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    command = [
        "select",
        "--model",
        str(model),
        "--output",
        str(folder),
        "--limit",
        "4",
        "--max-new-tokens",
        "4",
    ]
    assert main([*command, "--tasks", "demo_harmful,demo_benign", "--baselines", "none"]) == 0
    return folder


@pytest.fixture
def folder(selected, tmp_path):
    return shutil.copytree(selected, tmp_path / "run")


def refusal(capsys, *words):
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_step_goes_on_with_the_model_of_its_folder(folder):
    before = (folder / "routing/demo_harmful.safetensors").stat().st_mtime_ns
    assert main(["select", "--output", str(folder), "--top-k", "5"]) == 0
    assert (folder / "routing/demo_harmful.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("step", ["select", "train", "evaluate"])
def test_a_step_refuses_the_run_folder_of_another_model(folder, capsys, step):
    kept = (folder / "run.json").read_bytes()
    line = refusal(capsys, step, "--output", folder, "--model", "demo", "--max-new-tokens", "4")
    assert "is a run of model, not demo" in line
    assert "--output" in line
    assert (folder / "run.json").read_bytes() == kept


def test_a_step_refuses_weights_that_changed_since(folder, capsys):
    state = read_json(folder / "run.json")
    state["model"]["fingerprint"] = "0" * 64
    write_json(folder / "run.json", state)
    assert "the weights of model have changed" in refusal(capsys, "select", "--output", folder)


def test_routing_that_was_put_into_the_folder_from_elsewhere_is_captured_again(folder, capsys):
    path = folder / "routing/demo_harmful.safetensors"
    own = load_counts(path)
    shutil.copy(folder / "routing/demo_benign.safetensors", path)
    assert main(["select", "--output", str(folder)]) == 0
    line = "routing/demo_harmful.safetensors is not what the run wrote: making it again"
    assert line in capsys.readouterr().err.splitlines()
    assert load_counts(path).ids == own.ids
    assert (load_counts(path).counts == own.counts).all()
