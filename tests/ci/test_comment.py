"""The comment on a pull request: found again among many, never somebody else's, never too long."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ci.conftest import ROOT, TOKEN

from tools.pull_request_comment import MOST, comment

SCRIPT = ROOT / "tools" / "pull_request_comment.py"
MARK = "<!-- moe-safety-harness: harness -->"


@pytest.fixture
def write(github, tmp_path):
    (tmp_path / "gates.md").write_text("gates\n")
    (tmp_path / "report.md").write_text("report\n")

    def do(*words, token=TOKEN, url=github.url):
        words = words or ("owner/name", "7", "harness", "gates.md", "report.md")
        # No package of the harness is needed, nor found.
        command = [sys.executable, "-I", str(SCRIPT), *words]
        environment = {"GITHUB_TOKEN": token, "GITHUB_API_URL": url}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return do


def test_it_is_found_again_among_hundreds(write, github):
    for number in range(250):
        github.add(f"{number}: {MARK}")
    assert write().returncode == 0
    assert write().returncode == 0
    assert github.calls == ["GET"] * 3 + ["POST"] + ["GET"] * 3 + ["PATCH"]
    assert github.comments[250]["body"] == f"{MARK}\ngates\n\nreport\n"
    assert len(github.comments) == 251


def test_a_persons_comment_with_the_same_mark_is_left_alone(write, github):
    github.add(f"{MARK}\nmine", kind="User")
    write()
    assert [row["body"].splitlines()[1] for row in github.comments] == ["mine", "gates"]


def test_a_name_cannot_end_the_hidden_line(write, github):
    write("owner/name", "7", "--> shown", "gates.md")
    assert github.comments[0]["body"].splitlines()[0] == "<!-- moe-safety-harness: --%3E%20shown -->"


def test_a_token_without_permission_and_a_server_that_is_gone_are_one_line(write, github):
    done = write(token="other")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "HTTP 403" in done.stderr
    assert "pull-requests: write" in done.stderr
    done = write(url="http://127.0.0.1:9")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Connection refused" in done.stderr


def test_what_would_be_too_long_is_left_out_and_named(tmp_path):
    gates, report = tmp_path / "gates.md", tmp_path / "report.md"
    gates.write_text("g" * 5_000)
    report.write_text("r" * 60_000)
    assert comment(MARK, [gates, report]).endswith("r" * 60_000)
    gates.write_text("g" * 6_000)
    assert comment(MARK, [gates, report]).endswith("g\nreport.md is too long for this comment.\n")
    gates.write_text("g" * 70_000)
    text = comment(MARK, [gates, report])
    assert len(text) == MOST
    assert "(too long for a comment)" in text
