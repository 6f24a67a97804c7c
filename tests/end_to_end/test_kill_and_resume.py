"""A run that was killed in every stage, one after another, ends with what an undisturbed one finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.main import main
from harness.store.files import read_json

REPOSITORY = Path(__file__).resolve().parents[2]

# In the order in which a run comes by them; see kill_driver.py.
MOMENTS = [
    r"batch:routing/demo_harmful.jsonl.partial 1 ",  # its counts are written, its answers are not
    r"counts:demo_benign.jsonl.partial/00002",
    r"collect:routing/demo_twins",
    r"save:'expert table'",  # experts.parquet is whole, but the stage is not recorded
    r"batch:training/demo_benign.jsonl.partial 1 ",
    r"batch:base/responses/demo_twins.jsonl.partial 0 ",
    r"capability:capability base",
    r"step: 2$",
    r"whole+:unsafe_experts/delta.json",
    r"batch+:unsafe_experts/responses/demo_benign.jsonl.partial 1 ",
    r"capability+:capability unsafe_experts",
    r"merge:",
    r"compare:",  # the merged checkpoint is written
    r"save:'prove unsafe_experts'",
    r"summary:",
    r"whole:report.html",
]


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_as_an_undisturbed_one(tmp_path, findings, capsys):
    command = ["run", "--limit", "12", "--baselines", "none", "--capability-limit", "4"]
    command += ["--set", "training.max_steps=4", "--set", "generation.batch_size=4"]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    driver = [sys.executable, str(Path(__file__).with_name("kill_driver.py")), *MOMENTS, "--"]
    result = subprocess.run(
        [*driver, *command, "--output", str(killed)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=570,
    )
    ends = [
        line
        for line in result.stderr.splitlines()
        if line.startswith(("None: ", *(f"{m}: " for m in MOMENTS)))
    ]
    assert ends == [*(f"{moment}: signal 9" for moment in MOMENTS), "None: code 0"], result.stderr[-3000:]

    assert main([*command, "--output", str(undisturbed)]) == 0
    assert findings(killed) == findings(undisturbed)
    left = {path.relative_to(killed).as_posix() for path in killed.rglob("*") if path.is_file()}
    assert not [name for name in left if "partial" in name]
    listed = set(read_json(killed / "manifest.json")["files"])
    assert {name for name in left if ".tmp" not in name} == listed | {"manifest.json"}
