"""One run as a process: what is said of how it ended."""

from __future__ import annotations

import time

import pytest

from harness.sweep.folder import SweepFolder
from harness.sweep.job import Job, run_job
from harness.sweep.schema import read_sweep


@pytest.fixture
def job(sweep_file, tmp_path):
    (cell,) = read_sweep(sweep_file(axes={"seed": [0]})).cells
    return Job(cell.name, cell.settings, str(tmp_path / "out"))


def test_a_run_that_is_killed_says_by_what_and_only_after_a_while(job, tmp_path):
    seen = []

    def kill(process):
        seen.append((time.monotonic(), SweepFolder(tmp_path / "out").state(job.name).state))
        process.kill()

    state = run_job(job, node="here", on_start=kill, wait_after_kill=1.0)
    assert (state.state, state.exit_code) == ("failed", -9)
    assert state.reason == "killed by SIGKILL, perhaps for want of memory"
    ((began, before),) = seen
    assert before == "running"
    assert time.monotonic() - began >= 1.0
    assert SweepFolder(tmp_path / "out").state(job.name) == state


def test_a_run_that_refuses_its_settings_says_why_in_its_own_line(job, tmp_path):
    job.settings["tasks"] = ["demo_harmfull", "demo_benign"]
    state = run_job(job)
    assert (state.state, state.exit_code, state.attempt) == ("failed", 2, 1)
    assert "did you mean 'demo_harmful'?" in state.reason
    assert "harness: " not in state.reason
    assert not (tmp_path / "out" / "runs").exists()
    assert run_job(job).attempt == 2
