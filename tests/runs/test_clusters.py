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


def test_near_duplicates_decide_every_figure_and_test_by_their_groups(small_run, tmp_path):
    run = repeated(small_run, tmp_path)
    alike, summary = read_summary(small_run), measure(read_run(run))
    rows = {row.task: row for row in summary.of("system_prompt")}
    before = {row.task: row for row in alike.of("system_prompt")}
    assert (before["demo_harmful"].clusters, rows["demo_harmful"].clusters) == (None, 6)
    # The same answers, of which every second one is no evidence of its own.
    assert rows["demo_harmful"].value == before["demo_harmful"].value
    width, width_before = (each["demo_harmful"].high - each["demo_harmful"].low for each in (rows, before))
    assert width > width_before
    tests = [row for row in summary.comparisons if row.task == "demo_harmful"]
    assert tests
    for row in tests:
        assert (row.n, row.clusters) == (12, 6)
        assert row.low <= row.difference <= row.high


def test_a_task_of_different_prompts_has_no_groups(small_run):
    summary = read_summary(small_run)
    rows = [row for row in summary.measurements if row.task == "demo_twins"]
    assert rows
    assert all(row.clusters is None for row in rows)
