"""`harness report` without a run, in a browser, and what -q and --no-color leave."""

import re
import shutil
import webbrowser

import pytest

from harness.base.files import read_json, write_json
from harness.cli.main import main
from harness.report.finding import headline
from harness.runs.run import read_run
from harness.runs.run_folder import RunFolder
from tests.synthetic_runs import small, words_of_harm, write_run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two finished runs, the second one newer by its date, and an unfinished one that is newer still."""
    monkeypatch.chdir(tmp_path)
    with words_of_harm():
        old = write_run(tmp_path / "runs/b_old", small())
    new = shutil.copytree(old, tmp_path / "runs/a_new")
    content = read_json(new / "run.json") | {"created": "2026-05-05T00:00:00+00:00"}
    write_json(new / "run.json", content)
    RunFolder(new).write_manifest()
    begun = {"created": "2036-01-01T00:00:00+00:00", "config": {}, "stages": {}}
    write_json(tmp_path / "runs/begun/run.json", begun)
    return tmp_path / "runs"


def test_report_of_nothing_is_that_of_the_newest_finished_run(runs, capsys):
    assert main(["report"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("Report: runs/a_new/report.html")


def test_without_a_finished_run_that_is_one_line(runs, capsys):
    shutil.rmtree(runs / "a_new")
    shutil.rmtree(runs / "b_old")
    assert main(["report"]) == 2
    assert "runs: holds no finished run" in capsys.readouterr().err


def test_open_opens_the_page_in_a_browser(runs, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    assert main(["report", "--open"]) == 0
    assert main(["report", "runs/a_new", "runs/b_old", "--html", "board.html", "--open"]) == 0
    assert opened == [
        (runs / "a_new/report.html").resolve().as_uri(),
        (runs.parent / "board.html").resolve().as_uri(),
    ]
    assert main(["report", "runs/a_new", "runs/b_old", "--open"]) == 2
    assert "--html" in capsys.readouterr().err


def test_without_a_browser_the_page_is_named(runs, monkeypatch, capsys):
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert main(["report", "--open"]) == 0
    assert "no browser was found to open runs/a_new/report.html" in capsys.readouterr().err


def test_no_color_stands_anywhere_and_only_for_its_command(runs, monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")

    def has_colours(*words):
        assert main(["report", *words]) == 0
        return re.search(r"\x1b\[[\d;]*3\dm", capsys.readouterr().out) is not None

    assert [has_colours(), has_colours("--no-color"), has_colours()] == [True, False, True]


def test_quiet_leaves_the_headline_and_the_path(small_run, tmp_path, capsys):
    shutil.copytree(small_run, tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run"), "-q"]) == 0
    out, err = capsys.readouterr()
    line = headline(read_run(tmp_path / "run").summary)
    assert out.splitlines() == [line, f"Report: {tmp_path / 'run/report.html'}"]
    assert err == ""
