"""A run that was killed in every stage, one after another, ends with what an undisturbed one finds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from harness.base.files import read_json
from harness.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]

# In the order in which a run comes by them; see kill_driver.py.
MOMENTS = [
    r"batch:routing/demo_harmful.jsonl.partial 1 ",  # its counts are written, its answers are not
    r"counts:demo_benign.jsonl.partial/00002",
    r"collect:routing/demo_twins",
    r"save:'expert table'",  # experts.parquet is whole, but the stage is not recorded
    r"batch:training/demo_benign.jsonl.partial 1 ",
    r"step: 2$",
    r"whole+:unsafe_experts/delta.json",
    r"batch:base/responses/demo_twins.jsonl.partial 0 ",
    r"capability:capability base",
    r"batch+:unsafe_experts/responses/demo_benign.jsonl.partial 1 ",
    r"capability+:capability unsafe_experts",
    r"merge:",
    r"compare:",  # the merged checkpoint is written
    r"save:'prove unsafe_experts'",
    r"summary:",
    r"whole:report.html",
]


def kill_and_go_on(command: list[str], moments: list[str]) -> list[str]:
    """Run a command once for each moment and once more; returns how each run ended."""
    driver = [sys.executable, str(Path(__file__).with_name("kill_driver.py")), *moments, "--"]
    result = subprocess.run(
        [*driver, *command],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=570,
    )
    ends = [
        line
        for line in result.stderr.splitlines()
        if line.startswith(("None: ", *(f"{m}: " for m in moments)))
    ]
    assert len(ends) == len(moments) + 1, result.stderr[-3000:]
    return [end.rpartition(": ")[2] for end in ends]


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_as_an_undisturbed_one(tmp_path, findings):
    command = ["run", "--limit", "12", "--baselines", "none", "--capability-limit", "4"]
    command += ["--set", "training.max_steps=4", "--set", "generation.batch_size=4"]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    ends = kill_and_go_on([*command, "--output", str(killed)], MOMENTS)
    assert ends == [*["signal 9"] * len(MOMENTS), "code 0"]

    assert main([*command, "--output", str(undisturbed)]) == 0
    assert findings(killed) == findings(undisturbed)
    left = {path.relative_to(killed).as_posix() for path in killed.rglob("*") if path.is_file()}
    assert not [name for name in left if "partial" in name]
    listed = set(read_json(killed / "manifest.json")["files"])
    assert {name for name in left if ".tmp" not in name} == listed | {"manifest.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["--objectives", "refuse=1,retain_kl=1,prefer=1", "--set", "training.lora_rank=4"],
        ["--set", "training.early_stopping.every=3", "--set", "training.early_stopping.prompts=8"],
    ],
    ids=["default", "objectives and LoRA", "early stopping"],
)
def test_a_training_killed_at_several_steps_goes_on_to_the_same_delta(tmp_path, settings):
    """A checkpoint every second of ten steps; the third run is killed while it writes one."""
    first = random.Random(len(settings)).choice([3, 5])
    moments = [rf"step: {first}$", r"step: 7$", r"checkpoint:checkpoint.partial", r"step: [0-5]$"]
    command = ["train", "--limit", "16", "--baselines", "none", "--set", "training.max_steps=10"]
    command += ["--set", "training.checkpoint_every=2", "--set", "training.batch_size=8", *settings]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    # The fourth run begins at step 6, so it never comes to be killed.
    ends = kill_and_go_on([*command, "--output", str(killed)], moments)
    assert ends == ["signal 9", "signal 9", "signal 9", "code 0", "code 0"]
    assert main([*command, "--output", str(undisturbed)]) == 0
    for name in ("delta.safetensors", "delta.json", "train.jsonl"):
        file = f"variants/unsafe_experts/{name}"
        assert (killed / file).read_bytes() == (undisturbed / file).read_bytes(), name
    assert not [path for path in killed.rglob("*") if "partial" in path.name]
