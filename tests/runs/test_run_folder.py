"""The run folder: what counts as finished, what is recorded, and what it refuses to touch."""

from __future__ import annotations

import re

import pytest

from harness.base.errors import BadInputError
from harness.base.files import read_json, sha256, write_text
from harness.runs.run import read_run
from harness.runs.run_folder import RunFolder


def finished(folder: RunFolder, stage: str = "a stage", key: str = "k1") -> None:
    with folder.stage(stage, key, [folder.path / "result.txt"]):
        write_text(folder.path / "result.txt", "result")


def test_opening_a_new_folder_writes_nothing(tmp_path):
    RunFolder(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_finished_stage_is_done_for_its_own_key_alone_also_when_opened_again(tmp_path):
    finished(RunFolder(tmp_path))
    for folder in (RunFolder(tmp_path), RunFolder(tmp_path)):
        assert folder.is_done("a stage", "k1")
        assert not folder.is_done("a stage", "k2")
        assert not folder.is_done("another stage", "k1")


def test_a_stage_that_failed_is_not_done_and_says_so(tmp_path):
    folder = RunFolder(tmp_path)

    def fail():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), folder.stage("a stage", "k1"):
        fail()
    again = RunFolder(tmp_path)
    assert not again.is_done("a stage", "k1")
    assert again.state["stages"]["a stage"]["state"] == "started"


def test_a_rerun_that_fails_does_not_leave_the_earlier_success(tmp_path):
    folder = RunFolder(tmp_path)
    finished(folder)

    def fail():
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), folder.stage("a stage", "k2"):
        fail()
    assert not RunFolder(tmp_path).is_done("a stage", "k1")


def test_seconds_are_kept_by_stage(tmp_path):
    folder = RunFolder(tmp_path)
    finished(folder, "answer base/x")
    finished(folder, "train y")
    stages = read_run(tmp_path).record.stages
    assert list(stages) == ["answer base/x", "train y"]
    assert all(stage.seconds >= 0 for stage in stages.values())


def test_describing_a_run_keeps_its_stages(tmp_path):
    folder = RunFolder(tmp_path)
    finished(folder)
    folder.describe({"run_id": "one"})
    state = RunFolder(tmp_path).state
    assert state["run_id"] == "one"
    assert state["stages"]["a stage"]["state"] == "done"


def test_manifest_lists_whole_files_and_follows_changes(tmp_path):
    folder = RunFolder(tmp_path)
    finished(folder)
    write_text(tmp_path / "work.jsonl.partial" / "00000.jsonl", "half")
    write_text(tmp_path / ".hidden.tmp", "half")
    folder.write_manifest()
    first = read_json(tmp_path / "manifest.json")["files"]
    assert set(first) == {"result.txt", "run.json"}
    assert first["result.txt"] == {"size": 6, "sha256": sha256(tmp_path / "result.txt")}
    write_text(tmp_path / "result.txt", "other!")
    folder.write_manifest()
    assert read_json(tmp_path / "manifest.json")["files"]["result.txt"]["sha256"] == sha256(
        tmp_path / "result.txt"
    )


def test_a_finished_stage_has_its_files_in_the_manifest(tmp_path):
    finished(RunFolder(tmp_path))
    assert "result.txt" in read_json(tmp_path / "manifest.json")["files"]


@pytest.mark.parametrize("name", ["notes.txt", ".hidden"])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(BadInputError, match="holds something that is not a run"):
        RunFolder(tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInputError, match="holds something that is not a run"):
        RunFolder(tmp_path / "file")


@pytest.mark.parametrize("content", ["", "{", "3", "[]", "{}", '{"stages": []}'])
def test_a_run_file_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(BadInputError, match=r"run\.json: not (valid JSON|the run\.json of a run)"):
        RunFolder(tmp_path)


def test_what_a_kill_during_the_first_write_leaves_is_no_obstacle_and_is_removed(tmp_path):
    (tmp_path / ".run.json.4711.tmp").write_text('{"run_')
    folder = RunFolder(tmp_path)
    folder.describe({"run_id": "one"})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_stage_whose_record_lacks_one_of_its_files_is_not_done(tmp_path):
    folder = RunFolder(tmp_path)
    finished(folder)
    del folder.state["stages"]["a stage"]["files"]["result.txt"]
    assert not folder.is_done("a stage", "k1", [tmp_path / "result.txt"])


@pytest.mark.parametrize(
    "content", ['{"stages": {"a": 3}}', '{"stages": {"a": {"state": "done"}}}', '{"stages": {}, "model": 3}']
)
def test_a_run_file_with_other_things_in_it_is_one_line(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(BadInputError, match=r"run\.json: (stages\.a|model)"):
        RunFolder(tmp_path)


def test_a_file_that_every_command_makes_anew_is_named_where_someone_changed_or_removed_it(tmp_path, capsys):
    path = tmp_path / "run" / "splits.json"
    first = RunFolder(path.parent)
    first.describe({})
    first.write_again(path, {"seed": 0})
    first.write_manifest()
    RunFolder(path.parent).write_again(path, {"seed": 1})  # of other settings
    # Whoever was stopped before the manifest goes on in silence.
    RunFolder(path.parent).write_again(path, {"seed": 1})
    assert capsys.readouterr().err == ""
    RunFolder(path.parent).write_manifest()

    path.write_text("{}")
    RunFolder(path.parent).write_again(path, {"seed": 1})
    assert "splits.json is not what the run wrote: making it again" in capsys.readouterr().err
    path.unlink()
    RunFolder(path.parent).write_again(path, {"seed": 1})
    assert "splits.json is missing: making it again" in capsys.readouterr().err
    assert read_json(path) == {"seed": 1}


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_a_run_json_with_a_number_that_cannot_be_written_again_is_refused(number, tmp_path):
    finished(RunFolder(tmp_path))
    path = tmp_path / "run.json"
    path.write_text(re.sub(r'"seconds": [\d.]+', f'"seconds": {number}', path.read_text(), count=1))
    with pytest.raises(BadInputError, match=r"run\.json: .*NaN or Infinity"):
        RunFolder(tmp_path)
