"""The CI files under examples/ci are what the services read, and their lines run."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest
import yaml
from ci.conftest import ROOT
from conftest import SMALL_RUN

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))


def example(name):
    return yaml.safe_load((ROOT / "examples" / "ci" / name).read_text(encoding="utf-8"))


def shell(line, workspace, environment):
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", line],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_github_workflow_gives_the_action_inputs_that_it_has():
    workflow = example("github.yml")
    (job,) = workflow["jobs"].values()
    checkout, ours = job["steps"]
    assert re.fullmatch(r"actions/checkout@v\d+", checkout["uses"])
    assert re.fullmatch(r"OWNER/moe-safety-harness@v\d+", ours["uses"])
    assert set(ours["with"]) <= set(ACTION["inputs"])
    required = {name for name, row in ACTION["inputs"].items() if row.get("required")}
    assert required <= set(ours["with"])
    # What the action's comment, and its SARIF, need.
    assert workflow["permissions"] == {
        "contents": "read",
        "pull-requests": "write",
        "security-events": "write",
    }


@pytest.mark.slow
@pytest.mark.parametrize(("gates", "code"), [("gates.yaml", 0), ("broken.yaml", 3)])
def test_the_lines_of_the_gitlab_job_run(workspace, environment, gates, code):
    (job,) = example("gitlab-ci.yml").values()
    ours = {"RUN_ARGUMENTS": shlex.join(SMALL_RUN[1:]), "GATES": gates}
    environment = {**environment, **job["variables"], **ours, "HF_HOME": str(workspace / "hub")}
    done = [shell(line, workspace, environment) for line in job["script"]]
    assert [each.returncode for each in done] == [0, code], [each.stderr for each in done]
    for path in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]):
        assert (workspace / path).is_file()
    # INCONCLUSIVE, and that alone, is a warning.
    assert job["allow_failure"] == {"exit_codes": [4]}


@pytest.mark.parametrize(("gates", "code"), [("gates.yaml", 0), ("broken.yaml", 3)])
def test_the_pre_commit_hook_runs_with_the_arguments_of_the_example(workspace, environment, gates, code):
    (repository,) = example("pre-commit-config.yaml")["repos"]
    (used,) = repository["hooks"]
    assert used["id"] == HOOK["id"]
    assert (HOOK["language"], HOOK["pass_filenames"], HOOK["always_run"]) == ("system", False, True)
    arguments = [gates if word == "gates.yaml" else word for word in used["args"]]
    done = shell(shlex.join([*HOOK["entry"].split(), *arguments, "--json"]), workspace, environment)
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["exit_code"] == code
