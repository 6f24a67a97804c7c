"""The GitHub action: its steps run as GitHub's runner runs them, and no input becomes part of a script."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import venv
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from ci.conftest import ROOT, TOKEN
from ci.runner import run_action

from harness.base.files import read_json

FILE = ROOT / "action.yml"
ACTION = yaml.safe_load(FILE.read_text(encoding="utf-8"))
PULL_REQUEST = {
    "repository": "owner/name",
    "event_name": "pull_request",
    "token": TOKEN,
    "event": {"pull_request": {"number": 7, "head": {"repo": {"full_name": "owner/name"}}}},
}
RUN = ["Name the caches", "Run", "Check", "Comment"]


@pytest.fixture
def run(workspace, environment):
    """Do the steps of the action on a pull request, without installing anything."""

    def do(event=PULL_REQUEST, found=None, without=(), **inputs):
        inputs = {"run": "run", "gates": "gates.yaml", **inputs}
        inputs = {name.replace("_", "-"): value for name, value in inputs.items()}
        return run_action(FILE, workspace, inputs, event, environment, found or {}, ("Install", *without))

    return do


def test_scripts_hold_no_expression_so_that_an_input_cannot_become_code():
    assert "${{" not in "\n".join(step.get("run", "") for step in ACTION["runs"]["steps"])


def test_every_input_is_used_and_has_a_description():
    assert all(row["description"] for row in ACTION["inputs"].values())
    used = set(re.findall(r"inputs\.([a-z-]+)", str(ACTION["runs"])))
    assert used == set(ACTION["inputs"])


def test_other_actions_are_pinned_by_major_version():
    used = [step["uses"] for step in ACTION["runs"]["steps"] if "uses" in step]
    assert len(used) == 7
    assert [name for name in used if not re.fullmatch(r"(actions|github)/[a-z/-]+@v\d+", name)] == []


def test_gates_that_pass_are_a_job_that_passes(run, workspace, github):
    job = run()
    assert job.codes == dict.fromkeys(RUN, 0), job.printed
    assert job.outputs == {"verdict": "PASS"}
    assert "::error" not in job.printed["Check"]
    assert "Send to code scanning" not in job.used
    action, given = job.used["Keep JUnit, SARIF and Markdown"]
    assert (action, given["name"]) == ("actions/upload-artifact@v7", "harness")
    kept = {path.name for path in (workspace / given["path"]).iterdir()}
    assert kept == {"gates.xml", "gates.sarif", "gates.md"}
    (comment,) = github.comments
    mark, heading = comment["body"].splitlines()[:2]
    assert (mark, heading) == ("<!-- moe-safety-harness: harness -->", "### ✅ PASS: 1 gate")
    assert (workspace / "run/report.md").read_text() in comment["body"]


def test_a_gate_that_fails_fails_the_job_and_every_output_has_it(run, workspace, github):
    job = run(gates="broken.yaml", code_scanning="true", report="true")
    assert job.codes == {**dict.fromkeys(RUN, 0), "Check": 3}, job.printed
    assert job.outputs == {"verdict": "FAIL"}
    stopped = re.match(r"::stop-commands::(\w{32})\n", job.printed["Check"])
    table, resumed, commands = job.printed["Check"].partition(f"\n::{stopped[1]}::\n")
    assert resumed
    assert "FAIL: 1 of 2 gates" in table
    annotation = r"^::error file=broken.yaml,line=6,title=declines%2C mostly::FAIL: "
    assert re.search(annotation, commands, re.MULTILINE)
    assert job.summary.startswith("### ❌ FAIL: 1 of 2 gates: declines, mostly")
    suite = ET.parse(workspace / "harness-gates/gates.xml").getroot().find("testsuite")
    assert suite.get("failures") == "1"
    action, given = job.used["Send to code scanning"]
    assert action == "github/codeql-action/upload-sarif@v4"
    (result,) = read_json(workspace / given["sarif_file"])["runs"][0]["results"]
    assert result["ruleId"] == "declines, mostly"
    assert (workspace / "harness-gates/report.html").is_file()
    assert "### ❌ FAIL" in github.comments[0]["body"]


@pytest.mark.slow
def test_the_comment_is_updated(run, github):
    run(gates="broken.yaml")
    run()
    (comment,) = github.comments
    assert "PASS: 1 gate" in comment["body"]


@pytest.mark.parametrize(
    "event",
    [
        {**PULL_REQUEST, "event_name": "push"},
        {
            **PULL_REQUEST,
            "event": {"pull_request": {"number": 7, "head": {"repo": {"full_name": "fork/name"}}}},
        },
    ],
    ids=["push", "pull request from a fork"],
)
def test_where_there_is_nothing_to_comment_on_the_job_is_decided_all_the_same(run, event, github):
    job = run(event)
    assert job.outputs == {"verdict": "PASS"}
    assert "Comment" not in job.codes
    assert github.calls == []


def test_bad_input_is_no_verdict(run, github):
    job = run(gates="nowhere.yaml")
    assert (job.codes["Check"], job.outputs) == (2, {"verdict": ""})
    assert "Comment" not in job.codes
    assert "Keep JUnit, SARIF and Markdown" not in job.used


@pytest.mark.parametrize("inputs", [("run", "against", "name"), ("gates",), ("run_arguments",)])
def test_an_input_that_is_code_stays_text(run, workspace, inputs):
    code = "$(touch hacked) `touch hacked`; touch hacked"
    shutil.copytree(workspace / "run", workspace / code)
    run(**{"run": "new" if "run_arguments" in inputs else "run", **dict.fromkeys(inputs, code)})
    assert not (workspace / "hacked").exists()


def test_caches_are_named_by_what_they_hold_and_saved_when_they_were_not_found(run):
    no_check = ("Check",)
    job = run(without=no_check)
    again = run(run_arguments="--model other", found={"packages": {"cache-hit": "true"}}, without=no_check)
    for one in ("packages", "models"):
        (_, restored), (_, saved) = job.used[f"Restore {one}"], job.used[f"Save {one}"]
        assert restored == saved
        assert all(restored.values())
    assert "Save packages" not in again.used
    packages, models = (
        [each.used[f"Restore {one}"][1]["key"] for each in (job, again)] for one in ("packages", "models")
    )
    assert packages[0] == packages[1]
    assert models[0] != models[1]


@pytest.mark.slow
def test_all_of_it_runs_from_a_python_without_the_harness(workspace, environment, github, tmp_path):
    # Everything but the harness is taken from this environment, so that pip installs nothing else.
    home = tmp_path / "python"
    venv.create(home, with_pip=True, symlinks=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "rest.pth").write_text("\n".join(site.getsitepackages()))
    environment = {**environment, "PATH": os.pathsep.join([str(home / "bin"), environment["PATH"]])}
    del environment["PYTHONPATH"]
    python = home / "bin" / "python"
    get = [
        python,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        tmp_path / "got",
        "hatchling>=1.27",
    ]
    got = subprocess.run(get, env=environment, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"no package index: {got.stderr.strip().splitlines()[-1]}")
    small = """
        --intervention unsafe_experts --limit 8 --baselines none --capability none
        --set 'generation.max_new_tokens=4' --set training.max_steps=1
    """
    inputs = {"gates": "gates.yaml", "run-arguments": small, "torch-index": ""}
    job = run_action(FILE, workspace, inputs, PULL_REQUEST, environment)
    assert job.codes["Install"] == 0, job.printed["Install"]
    assert job.codes["Run"] == 0, job.printed["Run"]
    assert job.outputs["verdict"] in ("PASS", "FAIL", "INCONCLUSIVE"), job.printed
    assert len(github.comments) == 1
    where = subprocess.run(
        [python, "-c", "import harness; print(harness.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(packages)
