"""A run that was killed in every stage, one after another, ends with what an undisturbed one finds."""

from __future__ import annotations

import pytest
from end_to_end.killing import driver

from harness.base.files import read_json

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


@pytest.mark.slow
def test_a_run_killed_in_every_stage_ends_as_an_undisturbed_one(tmp_path, findings):
    command = ["run", "--limit", "12", "--baselines", "none", "--capability-limit", "4"]
    command += ["--set", "training.max_steps=4", "--set", "generation.batch_size=4", "--output"]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    with driver([*command, str(undisturbed)], tmp_path) as runs:
        ends = [runs.end_of([*command, str(killed)], moment) for moment in (*MOMENTS, None)]
    assert ends == [*["signal 9"] * len(MOMENTS), "code 0"]
    assert findings(killed) == findings(undisturbed)
    left = {path.relative_to(killed).as_posix() for path in killed.rglob("*") if path.is_file()}
    assert not [name for name in left if "partial" in name]
    listed = set(read_json(killed / "manifest.json")["files"])
    assert {name for name in left if ".tmp" not in name} == listed | {"manifest.json"}
