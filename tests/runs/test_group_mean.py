"""The mean over a group's tasks: harmful and benign apart, each task once, shown and gated like other figures."""

from __future__ import annotations

import json
import math

import pytest

from harness.base.files import read_json
from harness.cli.main import main
from harness.metrics.interval import Interval
from harness.report.columns import columns_of
from harness.report.write import write_measured
from harness.runs.group_mean import mean_of
from harness.runs.run_folder import RunFolder
from tests import synthetic_runs


def grouped(folder, **groups):
    """Return the summary of a run that was asked for groups."""
    run = RunFolder(folder)
    run.update({"groups": groups})
    return write_measured(run)


@pytest.fixture
def rich(tmp_path):
    return synthetic_runs.write_run(tmp_path / "rich", synthetic_runs.rich())


def test_a_mean_of_rates_has_an_interval_made_of_theirs():
    mean = mean_of([Interval(value=0.0, low=0.0, high=0.3), Interval(value=0.5, low=0.3, high=0.9)])
    assert (mean.value, mean.low) == (0.25, pytest.approx(0.25 - 0.1))
    assert mean.high == pytest.approx(0.25 + math.hypot(0.3, 0.4) / 2)


def test_harmful_and_benign_tasks_of_a_group_are_never_averaged_together(rich):
    kinds = {name: asked["kind"] for name, asked in read_json(rich / "run.json")["asked"].items()}
    plain = [name for name in kinds if "@" not in name]
    summary = grouped(rich, mine=plain, one=plain[:1])
    for kind, metric in (("harmful", "mean_refusal_rate"), ("benign", "mean_false_refusal_rate")):
        tasks = [name for name in plain if kinds[name] == kind]
        rows = [summary.figure("base", task, "refusal_rate", summary.judge) for task in tasks]
        mean = summary.figure("base", "mine", metric, summary.judge)
        assert (mean is None) == (len(tasks) < 2), "the mean of one task is the task"
        if mean is not None:
            assert mean.value == pytest.approx(sum(row.value for row in rows) / len(rows))
            assert (mean.n, mean.kind) == (sum(row.n for row in rows), kind)
            assert mean.low <= mean.value < mean.high
    assert {row.task for row in summary.measurements if row.metric.startswith("mean_")} == {"mine"}
    assert not [row for row in summary.comparisons if row.task == "mine"]
    assert "mine" not in summary.tasks()


def test_the_mean_stands_in_leaderboard_report_and_gates(rich, tmp_path, capsys):
    asked = read_json(rich / "run.json")["asked"]
    summary = grouped(rich, mine=[name for name in asked if "@" not in name])
    (column, *_) = [column for column in columns_of([summary]) if column.task == "mine"]
    assert not column.is_testable
    assert not column.decides
    assert main(["report", str(rich)]) == 0
    assert (
        f"mean {'refusal' if column.kind == 'harmful' else 'false refusal'}"
        in (rich / "report.html").read_text()
    )
    gates = {
        "gates": [
            {"name": "mean", "task": "mine", "metric": column.metric, "variant": "base", "at_least": 0.01}
        ]
    }
    (tmp_path / "gates.yaml").write_text(json.dumps(gates))
    for more in ([], ["--against", str(rich)]):
        capsys.readouterr()
        assert main(["check", str(rich), "--gates", str(tmp_path / "gates.yaml"), "--json", *more]) in (
            0,
            3,
            4,
        )
        (gate, *_) = json.loads(capsys.readouterr().out)["gates"]
        assert gate["verdict"] in ("PASS", "INCONCLUSIVE", "FAIL")
