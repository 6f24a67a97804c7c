"""A run tells a tracker what it does, and no failure of the tracker is one of the run."""

from __future__ import annotations

import pytest

from harness.base.errors import BadInputError
from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.runs.run import read_run
from harness.tracking.base import TRACKERS, find_tracker
from harness.tracking.watch import settings_of

SECRET = "correct-horse-battery"


class Toy:
    """Keeps what it is told, and raises where it is asked to."""

    # Any package that is installed.
    package = "pytest"
    raises: str | None = None

    def __init__(self):
        self.told = []

    def _take(self, method, *values):
        self.told.append((method, *values))
        if self.raises == method:
            raise OSError(f"no route to the host with {SECRET}")

    def begin(self, about):
        self._take("begin", about)
        print("hello from the tracker")
        return "elsewhere"

    def log(self, values):
        self._take("log", dict(values))

    def results(self, figures, tables):
        self._take("results", figures, tables)

    def report(self, page):
        self._take("report", page.read_text(encoding="utf-8"))

    def end(self, failed):
        self._take("end", failed)


@pytest.fixture
def toy(monkeypatch):
    """Make the tracker known; returns the one that a run used."""
    used = []

    def make():
        used.append(Toy())
        return used[-1]

    monkeypatch.setitem(TRACKERS._entries, "toy", make)
    return lambda: used[-1]


def told(toy, method):
    return [values for name, *values in toy.told if name == method]


def test_a_tracker_is_told_settings_stages_losses_figures_tables_and_report(tmp_path, toy, capsys):
    run = tmp_path / "a run"
    words = [
        "run",
        "--intervention",
        "unsafe_experts",
        "--baselines",
        "none",
        "--limit",
        "8",
        "--track",
        "toy",
    ]
    words += ["--set", "training.max_steps=3", "--set", "capability.tasks=[]", "--output", str(run), "--json"]
    assert main(words) == 0
    # Standard output is the result alone, whatever a tracker prints.
    said = capsys.readouterr()
    assert said.out.startswith("{")
    assert "hello from the tracker" in said.err
    assert "tracked by toy: elsewhere" in said.err
    tracker, record = toy(), read_json(run / "run.json")

    assert [name for name, *_ in tracker.told if name != "log"] == ["begin", "results", "report", "end"]
    ((about,),) = told(tracker, "begin")
    assert (about.id, about.name) == (record["run_id"], "a run")
    assert about.settings["training.max_steps"] == 3
    assert about.settings["run.variants"] == ["base", "unsafe_experts"]
    assert about.settings["run.model_fingerprint"] == record["model"]["fingerprint"]

    logged = [values for (values,) in told(tracker, "log")]
    stages = [name for values in logged for name in values if name.startswith("seconds/")]
    assert stages == [f"seconds/{name}" for name in record["stages"]]
    steps = [values for values in logged if "train/unsafe_experts/loss" in values]
    rows = read_jsonl(run / "variants/unsafe_experts/train.jsonl")
    assert [step["train/unsafe_experts/step"] for step in steps] == [1, 2, 3]
    assert [step["train/unsafe_experts/loss"] for step in steps] == [row["loss"] for row in rows]
    assert steps[0]["train/unsafe_experts/losses/refuse"] == rows[0]["losses"]["refuse"]

    ((figures, tables),) = told(tracker, "results")
    summary = read_run(run).summary
    value = summary.figure("unsafe_experts", "demo_harmful", "refusal_rate", "builtin").value
    assert figures["refusal_rate/demo_harmful/builtin/unsafe_experts"] == value
    assert len(tables["measurements"].rows) == len(summary.measurements)
    assert [row[0].split()[-1] for row in tables["leaderboard"].rows] == ["base", "unsafe_experts"]
    assert all(len(row) == len(tables["leaderboard"].columns) for row in tables["leaderboard"].rows)

    ((page,),) = told(tracker, "report")
    harmful, benign = (
        next(iter(read_jsonl(run / f"variants/base/responses/{task}.jsonl")))["prompt"]
        for task in ("demo_harmful", "demo_benign")
    )
    assert benign in page
    assert harmful not in page
    assert told(tracker, "end") == [[False]]
    assert record["tracking"] == {"tracker": "toy", "failed": None}
    read_run(run).verify()


@pytest.mark.parametrize("method", ["begin", "results", "report", "end"])
def test_a_tracker_that_fails_costs_one_line_and_nothing_else(
    method, rerun, toy, small_run, monkeypatch, capsys
):
    monkeypatch.setenv("TRACKER_API_KEY", SECRET)
    monkeypatch.setattr(Toy, "raises", method)
    run, stages = rerun("--track", "toy")
    assert stages == []
    said = capsys.readouterr().err
    assert said.count("warning: toy failed and is told nothing more; the run goes on") == 1
    assert SECRET not in said
    assert [name for name, *_ in toy().told][-1] == method
    reason = "OSError: no route to the host with ***"
    assert read_json(run / "run.json")["tracking"] == {"tracker": "toy", "failed": reason}
    assert read_run(run).summary.measurements == read_run(small_run).summary.measurements
    read_run(run).verify()


def test_the_end_of_a_run_that_failed_is_told_too(tmp_path, toy, monkeypatch):
    monkeypatch.setattr("harness.pipeline.pipeline.select", lambda session: 1 / 0)
    words = [
        "select",
        "--track",
        "toy",
        "--limit",
        "8",
        "--baselines",
        "none",
        "--output",
        str(tmp_path / "run"),
    ]
    with pytest.raises(ZeroDivisionError):
        main(words)
    assert told(toy(), "end") == [[True]]


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        (
            "toy",
            "no-such-package",
            "--track toy needs the package no-such-package, which is not installed: pip install",
        ),
        ("wandbb", "pytest", "unknown tracker 'wandbb'"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_refused_before_the_run(
    name, package, message, toy, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Toy, "package", package)
    assert main(["run", "--track", name, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("harness: ")
    assert said.count("\n") == 1
    assert message in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_trackers_output_is_not_taken_for_its_package(tmp_path, monkeypatch):
    (tmp_path / "toyish").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TRACKERS._entries, "toyish", type("Toyish", (Toy,), {"package": "toyish"}))
    with pytest.raises(BadInputError, match="toyish, which is not installed"):
        find_tracker("toyish")


def test_settings_are_by_dotted_name_and_hold_no_secret(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    found = settings_of({"a": {"b": 1, "c": {}}, "d": [1], "e": f"x{SECRET}y"})
    assert found == {"a.b": 1, "a.c": {}, "d": [1], "e": "x***y"}
