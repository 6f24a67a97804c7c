"""What the tutorial shows is what its commands print."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from harness.cli.main import main
from tools import first_minutes, tutorial_docs


def checked_outputs() -> list[tuple[str, str]]:
    """Return the commands whose output the tutorial shows in part, and that part; `...` stands for left-out lines."""
    page = tutorial_docs.PAGE.read_text(encoding="utf-8")
    return re.findall(r"<!-- output: harness (.*?) -->\n```\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("command", "shown"), checked_outputs())
def test_a_short_output_of_the_tutorial_is_what_its_command_prints(command, shown, capsys):
    assert main(shlex.split(command)) == 0
    printed = capsys.readouterr().out
    for part in shown.split("...\n"):
        assert part in printed


def test_there_are_short_outputs_to_check():
    assert checked_outputs()


def test_the_output_of_another_run_would_be_put_in_place(monkeypatch):
    monkeypatch.setattr(tutorial_docs, "shown", lambda run: "another table")
    page = tutorial_docs.PAGE.read_text(encoding="utf-8")
    block = f"{tutorial_docs.BEGIN}```\nanother table\n```\n{tutorial_docs.END}"
    assert block in tutorial_docs.updated(page, None)
    assert block not in page


@pytest.mark.slow
def test_the_tutorials_main_job_ends_as_the_tutorial_shows(tmp_path):
    run = tmp_path / "runs" / "first"
    assert main(["run", "--intervention", "unsafe_experts", "--output", str(run)]) == 0
    page = tutorial_docs.PAGE.read_text(encoding="utf-8")
    assert tutorial_docs.updated(page, run) == page, "run: python -m tools.tutorial_docs RUN"


def test_the_tutorial_says_how_long_each_of_its_steps_takes():
    page = tutorial_docs.PAGE.read_text(encoding="utf-8")
    steps = first_minutes.steps_of(page)
    assert len(steps) == 9
    assert "harness run --intervention unsafe_experts --output runs/first" in steps["2. the main job"]
    assert steps["9. use the trained model"].endswith("PYTHON")
    for name, named in (("tutorial", steps), ("readme", first_minutes.NEWCOMER)):
        times = page.split(f"<!-- times: {name} -->\n")[1].split(f"\n<!-- /times: {name} -->")[0]
        rows = [
            line.split(" | ")[0].removeprefix("| ") for line in times.splitlines() if line.startswith("| ")
        ]
        assert rows == ["step", "---", *named, "all"]
        assert re.search(r"20\d\d-\d\d-\d\d", times), "the date"


def test_times_are_measured_of_what_the_commands_take(tmp_path):
    steps = {"waits": "sleep 0.2", "writes": "echo hello > file", "reads": "test $(cat file) = hello"}
    times = dict(first_minutes.timed(steps, tmp_path))
    assert list(times) == list(steps)
    assert times["waits"].clock >= 0.2 > times["waits"].cpu
    table = first_minutes.times_table(times, "step", 0.5)
    assert table.splitlines()[0] == "| step | seconds | CPU seconds |"
    page = "before\n<!-- times: x -->\nold\n<!-- /times: x -->\nafter"
    assert first_minutes.updated(page, "x", "new") == page.replace("old", "new")
    with pytest.raises(subprocess.CalledProcessError):
        dict(first_minutes.timed({"fails": "false; true"}, tmp_path))
