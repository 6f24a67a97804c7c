import json
import shutil

import pytest

from harness.base.files import read_json, write_json
from harness.cli.main import main


@pytest.fixture
def runs(small_run, tmp_path):
    """A finished run, one that was only begun, and one whose summary was changed."""
    shutil.copytree(small_run, tmp_path / "runs/whole")
    changed = shutil.copytree(small_run, tmp_path / "runs/changed")
    (changed / "summary.json").write_text("{}")
    begun = {"created": "2036-01-01T00:00:00+00:00", "config": {"intervention": "steer"}, "stages": {}}
    write_json(tmp_path / "runs/begun/run.json", begun)
    return tmp_path / "runs"


def test_list_says_of_each_run_how_far_it_came(runs, capsys):
    assert main(["runs", "list", str(runs), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0] == {
        "name": "begun",
        "model": None,
        "intervention": "steer",
        "date": "2036-01-01T00:00:00+00:00",
        "state": "unfinished",
        "path": str(runs / "begun"),
        "reason": None,
    }
    states = {row["name"]: row["state"] for row in rows}
    assert states == {"begun": "unfinished", "whole": "finished", "changed": "damaged"}
    changed = next(row for row in rows if row["name"] == "changed")
    assert changed["model"] == "demo"
    assert "summary.json was cut off" in changed["reason"]


def test_list_prints_a_table_and_the_reasons_beside_it(runs, capsys):
    (runs / "begun/run.json").write_text("[]")
    assert main(["runs", "list", str(runs)]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[1:]].count("damaged") == 2
    assert "begun/run.json: not the run.json of a run" in err


def test_list_of_a_run_itself_is_that_run(small_run, capsys):
    assert main(["runs", "list", str(small_run), "--json"]) == 0
    assert [row["path"] for row in json.loads(capsys.readouterr().out)] == [str(small_run)]


@pytest.mark.parametrize("place", ["not there", "."])
def test_a_place_without_runs_is_bad_input(tmp_path, monkeypatch, capsys, place):
    monkeypatch.chdir(tmp_path)
    assert main(["runs", "list", place]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["runs", "list"]) == 2
    assert "runs: no such folder" in capsys.readouterr().err


def test_show_tells_what_a_run_is_about(small_run, capsys):
    assert main(["runs", "show", str(small_run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    record = read_json(small_run / "run.json")
    assert shown["headline"].startswith("unsafe_experts ")
    assert (shown["state"], shown["model"], shown["date"]) == ("finished", "demo", record["created"])
    assert next(iter(shown["variants"])) == "base"
    assert shown["seconds"] == {name: stage["seconds"] for name, stage in record["stages"].items()}
    assert main(["runs", "show", str(small_run)]) == 0
    assert "state: finished" in capsys.readouterr().out


def test_show_of_an_unfinished_run_has_no_headline(runs, capsys):
    assert main(["runs", "show", str(runs / "begun"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["headline"], shown["state"], shown["variants"]) == (None, "unfinished", {})
    assert main(["runs", "show", str(runs)]) == 2
    assert "is not the folder of a run: it has no run.json" in capsys.readouterr().err
