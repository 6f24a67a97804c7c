"""A run with several sampled answers per prompt that was killed between batches ends as an undisturbed one."""

from __future__ import annotations

import pytest
from end_to_end.killing import driver

MOMENTS = [
    r"batch:base/responses/demo_harmful.jsonl.partial 1 ",
    r"batch+:system_prompt/responses/demo_benign.jsonl.partial 0 ",
    r"collect:system_prompt/responses/demo_benign",
]


@pytest.mark.slow
def test_a_sampled_run_that_was_killed_ends_as_an_undisturbed_one(tmp_path, findings):
    command = ["run", "--intervention", "system_prompt", "--baselines", "none", "--capability", "none"]
    command += [
        "--tasks",
        "demo_harmful,demo_benign",
        "--limit",
        "12",
        "--answers",
        "3",
        "--temperature",
        "1.2",
    ]
    command += ["--set", "generation.batch_size=12", "--output"]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    with driver([*command, str(undisturbed)], tmp_path) as runs:
        ends = [runs.end_of([*command, str(killed)], moment) for moment in (*MOMENTS, None)]
    assert ends == [*["signal 9"] * len(MOMENTS), "code 0"]
    assert findings(killed) == findings(undisturbed)
