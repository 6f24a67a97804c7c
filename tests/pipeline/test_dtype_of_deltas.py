"""Deltas have the dtype that the files have; a run that could not hold them is refused in the plan."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.cli.main import main
from harness.models.load import DEMO_FOLDER, load_model, resolve_model


@pytest.fixture
def checkpoint(tmp_path):
    """Write the demo with its weights in one dtype, and another one in config.json."""

    def write(stored: torch.dtype, said: str) -> str:
        folder = tmp_path / "copy"
        shutil.copytree(DEMO_FOLDER, folder)
        file = folder / "model.safetensors"
        tensors = {name: value.to(stored) for name, value in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"dtype": said}))
        return str(folder)

    return write


def plan(folder: str, *more: str) -> int:
    tasks = ["--tasks", "demo_harmful,demo_benign", "--limit", "12"]
    return main(["run", "--dry-run", "--model", folder, *tasks, *more])


@pytest.mark.parametrize(
    ("stored", "said"),
    [(torch.bfloat16, "float32"), (torch.float32, "bfloat16"), (torch.float16, "bfloat16")],
)
def test_the_headers_decide_the_dtype_of_deltas(checkpoint, stored, said):
    loaded = load_model(resolve_model(checkpoint(stored, said)), device="cpu")
    assert loaded.checkpoint_dtype == stored
    assert next(loaded.moe.model.parameters()).dtype == getattr(torch, said)


@pytest.mark.parametrize(
    ("stored", "said", "flags", "message"),
    [
        (
            torch.float32,
            "bfloat16",
            [],
            "as float32, config.json says bfloat16, which cannot hold the trained ones",
        ),
        (torch.float32, "float32", ["--dtype", "bfloat16"], "as float32, the run's dtype is bfloat16"),
        (torch.bfloat16, "bfloat16", ["--dtype", "float16"], "as bfloat16, the run's dtype is float16"),
        (torch.float16, "bfloat16", [], "as float16, config.json says bfloat16"),
    ],
)
def test_a_run_that_trains_in_a_dtype_that_cannot_hold_them_is_refused_in_the_plan(
    checkpoint, capsys, stored, said, flags, message
):
    folder = checkpoint(stored, said)
    assert plan(folder, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    advice = error.rpartition("use ")[2].split()
    assert advice[0] == "--dtype"
    assert plan(folder, *advice) == 0


@pytest.mark.parametrize(
    ("said", "flags"), [("float32", []), ("bfloat16", []), ("float16", ["--dtype", "float32"])]
)
def test_one_that_can_is_not(checkpoint, said, flags):
    assert plan(checkpoint(torch.bfloat16, said), *flags) == 0


def test_what_trains_nothing_may_have_any_dtype(checkpoint):
    folder = checkpoint(torch.float32, "bfloat16")
    assert plan(folder, "--intervention", "system_prompt", "--baselines", "none") == 0


@pytest.mark.parametrize("said", ["x", "int8", "Tensor"])
def test_a_dtype_that_is_none_is_one_line(checkpoint, capsys, said):
    assert plan(checkpoint(torch.bfloat16, said)) == 2
    assert capsys.readouterr().err.count("\n") == 1
