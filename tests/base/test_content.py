"""Where tasks and baselines are read from, and what stands in for what."""

from __future__ import annotations

import pytest

from harness.base import content
from harness.base.content import content_folder, yaml_files, yaml_files_by_name
from harness.base.errors import BadInputError
from harness.cli.main import main


@pytest.mark.parametrize("folder", ["tasks", "baselines", "reports"])
def test_a_checkout_reads_its_own_folders(folder):
    assert content_folder(folder).name == folder
    assert any(content_folder(folder).iterdir())


def test_a_wheels_own_folder_wins(tmp_path, monkeypatch):
    (tmp_path / "harness" / "_content" / "tasks").mkdir(parents=True)
    monkeypatch.setattr(content, "_PACKAGE", tmp_path / "harness")
    assert content_folder("tasks") == tmp_path / "harness" / "_content" / "tasks"
    assert content_folder("reports") == tmp_path / "reports"


def test_included_files_come_first_from_sub_folders_or_side_by_side(tmp_path):
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "deep.yaml").write_text("name: deep\n")
    (tmp_path / "flat.yaml").write_text("name: flat\nintervention: none\n")
    (tmp_path / "task.yaml").write_text("name: task\nkind: harmful\n")
    (tmp_path / "notes.txt").write_text("intervention: none")
    baselines, tasks = list(yaml_files("baselines", [tmp_path])), list(yaml_files("tasks", [tmp_path]))
    assert [path.name for path in baselines[:2]] == ["deep.yaml", "flat.yaml"]
    assert "base.yaml" in {path.name for path in baselines[2:]}
    assert tasks[0].name == "task.yaml"
    assert "flat.yaml" not in {path.name for path in tasks}


def test_folders_are_searched_in_the_order_they_are_named(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name / "tasks").mkdir(parents=True)
        (tmp_path / name / "tasks" / "mine.yaml").write_text("name: mine\n")
    found = list(yaml_files("tasks", [tmp_path / "b", tmp_path / "a"]))
    assert [path.parts[-3] for path in found[:2]] == ["b", "a"]


def test_an_included_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="--include: no folder"):
        list(yaml_files("tasks", [tmp_path / "none"]))


@pytest.mark.parametrize(("first", "second"), [("a/tasks", "a"), ("a", "b")])
def test_two_included_files_with_one_name_are_refused_in_one_line(tmp_path, capsys, first, second):
    for place in (first, second):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "mine.yaml").write_text("name: mine\nkind: benign\n")
    include = [f"--include={tmp_path / place}" for place in dict.fromkeys((first[0], second))]
    assert main(["tasks", "show", "mine", *include]) == 2
    error = capsys.readouterr().err
    assert "--include: two tasks are called 'mine', expected one: " in error
    assert error.count("\n") == 1


def test_an_included_file_stands_for_ours_and_may_be_included_twice(tmp_path):
    (tmp_path / "tasks").mkdir()
    mine = tmp_path / "tasks" / "advbench.yaml"
    mine.write_text("name: advbench\nkind: harmful\n")
    found = yaml_files_by_name("tasks", [tmp_path, tmp_path / "tasks"])
    assert found["advbench"] == mine
    assert found["alpaca"].is_relative_to(content_folder("tasks"))
