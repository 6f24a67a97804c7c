"""A run that is started again is no result until it ends: its old figures are not those of its new settings."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from harness.base.files import read_json
from harness.cli.main import main
from harness.report.boards.entries import read_entries
from harness.report.boards.write import _state
from harness.runs.listing import list_runs
from harness.runs.run_folder import RunFolder


@pytest.fixture
def folder(small_run, tmp_path):
    large = shutil.ignore_patterns("model", "delta.safetensors")
    copy = shutil.copytree(small_run, tmp_path / "runs" / "one", ignore=large)
    RunFolder(copy).write_manifest()
    return copy


@pytest.fixture
def made_anew(folder):
    """The folder while its command runs again, with another learning rate; a stage has just ended."""
    run = RunFolder(folder)
    run.update({"configuration": "of another learning rate", "evaluated": {}})
    run.write_manifest()
    return folder


def test_a_summary_has_the_configuration_that_run_json_has(small_run):
    configuration = read_json(small_run / "run.json")["configuration"]
    assert len(configuration) == 32
    assert read_json(small_run / "summary.json")["configuration"] == configuration


def test_it_is_listed_as_being_made_anew(made_anew, capsys):
    assert [run.state for run in list_runs(made_anew.parent)] == ["being made anew"]
    assert main(["runs", "list", str(made_anew.parent)]) == 0
    assert "being made" in capsys.readouterr().out


@pytest.mark.parametrize("of_a_folder", [True, False])
def test_a_leaderboard_lists_it_without_figures(made_anew, of_a_folder, capsys):
    place = made_anew.parent if of_a_folder else made_anew
    entries, left_out = read_entries([place])
    assert entries == []
    assert [out.path for out in left_out] == [made_anew]
    assert "is being made anew" in left_out[0].reason
    assert main(["report", str(made_anew.parent), "--json"]) == 0
    board = json.loads(capsys.readouterr().out)
    assert "refusal_rate" not in json.dumps(board.get("boards", board))


def test_all_figures_there_and_others_still_to_come_is_being_made_anew_too(folder):
    run = RunFolder(folder)
    run.update({"evaluated": {"base": run.state["evaluated"]["base"]}})
    run.write_manifest()
    assert [run.state for run in list_runs(folder.parent)] == ["being made anew"]


def test_what_watches_a_leaderboard_notices_when_a_run_is_started_again(folder):
    before = _state([folder.parent])
    assert _state([folder.parent]) == before
    RunFolder(folder).update({"configuration": "another"})
    assert _state([folder.parent]) != before


def test_commands_on_it_say_so_in_one_line(made_anew, tmp_path, capsys):
    gates = tmp_path / "gates.yaml"
    gate = {"name": "g", "metric": "refusal_rate", "task": "demo_benign", "at_most": 0.4}
    gates.write_text(yaml.safe_dump({"gates": [gate]}))
    run = str(made_anew)
    for command in (
        ["report", run],
        ["check", run, "--gates", str(gates)],
        ["measure", run],
        ["analyze", run],
        ["export", run, str(tmp_path / "out")],
        ["evaluate", run, "--judge", "keyword"],
    ):
        capsys.readouterr()
        assert main(command) == 2, command
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1), command
        assert "being made anew" in err, command


def test_a_run_of_an_earlier_version_has_no_configuration_and_keeps_its_figures(folder):
    state, summary = read_json(folder / "run.json"), read_json(folder / "summary.json")
    del state["configuration"], summary["configuration"]
    (folder / "run.json").write_text(json.dumps(state))
    (folder / "summary.json").write_text(json.dumps(summary))
    RunFolder(folder).write_manifest()
    assert [run.state for run in list_runs(folder.parent)] == ["finished"]
