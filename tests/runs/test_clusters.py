"""Near-duplicates among the test prompts of a real run."""

from __future__ import annotations

import shutil

from harness.base.files import read_jsonl, write_jsonl
from harness.runs.measure import measure
from harness.runs.run import read_run
from harness.runs.summary import read_summary


def repeated(small_run, tmp_path):
    """A copy of a run in which every second harmful prompt repeats the one before it."""
    run = shutil.copytree(small_run, tmp_path / "run")
    for path in run.glob("variants/*/responses/demo_harmful.jsonl"):
        rows = read_jsonl(path)
        for first, second in zip(rows[::2], rows[1::2], strict=True):
            second["prompt"] = first["prompt"].upper()
        write_jsonl(path, rows)
    return run


def test_rates_and_tests_are_also_told_over_groups(small_run, tmp_path):
    run = repeated(small_run, tmp_path)
    summary = measure(read_run(run))
    rows = {row.task: row for row in summary.of("system_prompt")}
    assert rows["demo_harmful"].clustered.groups == 6
    width = rows["demo_harmful"].high - rows["demo_harmful"].low
    assert rows["demo_harmful"].clustered.high - rows["demo_harmful"].clustered.low >= width
    tests = [row for row in summary.comparisons if row.clustered is not None]
    assert {row.task for row in tests} <= {"demo_harmful", "demo_benign"}
    for row in tests:
        assert row.clustered.low <= row.difference <= row.clustered.high


def test_a_task_of_different_prompts_stays_as_it_is(small_run):
    summary = read_summary(small_run)
    rows = [row for row in summary.measurements if row.task == "demo_twins"]
    assert rows
    assert all(row.clustered is None for row in rows)
