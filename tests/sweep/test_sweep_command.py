"""`harness sweep` on this machine, with real runs of the demo model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from harness.base.files import read_json
from harness.cli.main import main

AXES = {
    "selection.top_k": [4, 8],
    # No demo has so many experts in a layer: this run fails, and the others do not.
    "what": {"good": {"seed": 0}, "bad": {"selection.top_p": 0.5, "selection.threshold": 99.0}},
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """One sweep of real runs, two of which fail, to be looked at."""
    import yaml
    from sweeps import BASE

    folder = tmp_path_factory.mktemp("swept")
    file = folder / "table.yaml"
    file.write_text(yaml.safe_dump({"base": BASE, "axes": AXES}, sort_keys=False))
    command = [sys.executable, "-m", "harness", "sweep", str(file), "--output", str(folder / "out"), "--json"]
    results = f"file://{folder}/kept"
    done = subprocess.run(
        [*command, "--results", results, "--jobs", "2"], capture_output=True, text=True, check=False
    )
    return file, folder / "out", folder / "kept", done


@pytest.mark.slow
def test_good_runs_finish_beside_bad_ones_which_say_why(swept):
    _, out, _, done = swept
    assert done.returncode == 1, done.stderr
    runs = {tuple(run["labels"].values()): run for run in json.loads(done.stdout)["runs"]}
    for top_k in ("4", "8"):
        assert runs[top_k, "good"]["state"] == "finished"
        assert runs[top_k, "bad"]["state"] == "failed"
        assert runs[top_k, "bad"]["exit_code"] in (1, 2)
        assert "selection.threshold" in runs[top_k, "bad"]["reason"]
    assert "4/4" in done.stderr
    assert (out / "leaderboard.html").is_file()
    assert "unsafe_experts" in (out / "leaderboard.md").read_text()


@pytest.mark.slow
def test_base_answers_once_for_runs_that_share_it(swept):
    _, out, _, _ = swept
    stages = [read_json(path)["stages"] for path in sorted(out.glob("runs/*good*/run.json"))]
    lent = [[name for name, record in each.items() if "lent_by" in record] for each in stages]
    assert sorted(map(bool, lent)) == [False, True]
    assert "answer base/demo_harmful" in max(lent, key=len)
    assert "capture demo_benign" in max(lent, key=len)


@pytest.mark.slow
def test_finished_runs_are_copied_whole(swept):
    _, out, kept, _ = swept
    for run in out.glob("runs/*good*"):
        files = {
            path.relative_to(run) for path in run.rglob("*") if path.is_file() and ".lock" not in path.name
        }
        assert {
            path.relative_to(kept / run.name) for path in (kept / run.name).rglob("*") if path.is_file()
        } == files
    assert not list(kept.glob("*bad*"))
    assert (kept / "leaderboard.html").is_file()


@pytest.mark.slow
def test_status_shows_every_run_and_why_it_failed(swept, capsys):
    _, out, _, _ = swept
    assert main(["sweep", str(out), "--status", "--json"]) == 0
    states = [run["state"] for run in json.loads(capsys.readouterr().out)["runs"]]
    assert sorted(states) == ["failed", "failed", "finished", "finished"]
    assert main(["sweep", str(out), "--status"]) == 0
    said = capsys.readouterr().out
    assert "2 finished, 2 failed" in said


@pytest.mark.slow
def test_a_driver_that_was_killed_takes_its_runs_with_it_and_goes_on_where_it_was(sweep_file, tmp_path):
    file, out = sweep_file(axes={"selection.top_k": [4, 8]}), tmp_path / "out"
    command = [sys.executable, "-m", "harness", "sweep", str(file), "--output", str(out), "--json"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(finished(out)) == 1 and "running" in states(out), driver)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    before = finished(out)
    # Its run dies with it: nothing writes on.
    wait_for(lambda: not processes(out), None)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = {run["name"]: run for run in json.loads(done.stdout)["runs"]}
    assert {run["state"] for run in runs.values()} == {"finished"}
    for name, summary in before.items():
        assert runs[name]["attempt"] == 1
        assert (out / "runs" / name / "summary.json").stat().st_mtime_ns == summary
    assert sorted(run["attempt"] for run in runs.values()) in ([1, 2], [1, 1])


def test_a_dry_run_names_the_runs_and_writes_nothing(sweep_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = sweep_file("table.yaml", axes={"seed": [0, 1], "selection.top_k": [4, 4]})
    assert main(["sweep", str(file), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "2 runs, 2 combinations merged with them; base models that answer: 1." in said
    assert main(["sweep", str(file), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sweep"] == "runs/sweeps/table"
    assert [run["labels"] for run in found["runs"]] == [
        {"seed": "0", "selection.top_k": "4"},
        {"seed": "1", "selection.top_k": "4"},
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.yaml"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--executor", "local", "--address", "127.0.0.1:1"], "--address is for --executor ray"),
        (["--executor", "ray", "--jobs", "2"], "--jobs is for --executor local"),
        (["--results", "s4://bucket"], "--results s4://bucket"),
        (["--status"], "holds no sweep.json"),
    ],
)
def test_options_that_do_not_go_together_are_refused(sweep_file, tmp_path, capsys, more, said):
    file = sweep_file(axes={"seed": [0]})
    assert main(["sweep", str(file), "--output", str(tmp_path / "out"), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def states(out):
    return [read_json(path)["state"] for path in out.glob("cells/*.json")]


def finished(out):
    """Return when each finished run's summary was written."""
    names = [path.stem for path in out.glob("cells/*.json") if read_json(path)["state"] == "finished"]
    return {name: (out / "runs" / name / "summary.json").stat().st_mtime_ns for name in names}


def processes(out):
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "run" in (process.info["cmdline"] or []) and any(
            str(out) in part for part in process.info["cmdline"]
        ):
            found.append(process)
    return found


def wait_for(condition, driver, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert driver is None or driver.poll() is None, "the sweep ended too early"
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)
