"""The package in examples/plugin: installed, used, then broken on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.main import main

pytestmark = [pytest.mark.integrations, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
KINDS = [
    *("task", "baseline", "judge", "intervention kind", "selection method", "objective", "metric", "engine"),
    "export format",
]


def harness(packages: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a Python that has the folder's packages installed."""
    path = os.pathsep.join([str(packages), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "harness", *words],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "400"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The folder that pip installed the package into."""
    folder = tmp_path_factory.mktemp("packages") / "site"
    source = shutil.copytree(ROOT / "examples" / "plugin", folder.parent / "source")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        str(source),
    ]
    subprocess.run(pip, check=True)
    return folder


@pytest.fixture(scope="module")
def run(packages):
    """The folder of a run that uses all of the package."""
    folder = packages.parent / "run"
    ended = harness(
        packages,
        *(
            "run",
            "--intervention",
            "unsafe_experts",
            "--baselines",
            "example_damped",
            "--judge",
            "example_apology",
        ),
        *("--tasks", "demo_harmful,demo_benign,example_requests", "--engine", "example_one_by_one"),
        *("--method", "example_surprise", "--objectives", "example_refuse_gently=1,retain=1"),
        *("--limit", "12", "--max-new-tokens", "8", "--capability", "none", "--output", str(folder)),
    )
    assert ended.returncode == 0, ended.stderr
    return folder


def test_one_of_each_kind_is_listed_and_works(packages):
    listed = harness(packages, "plugins", "list", "--json")
    assert [(row["kind"], row["problem"]) for row in json.loads(listed.stdout)] == [
        (kind, "") for kind in KINDS
    ]
    assert harness(packages, "plugins", "check").returncode == 0


def test_a_run_and_an_export_use_them(packages, run):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["judge"] == "example_apology"
    assert summary["decoding"]["engine"] == "example_one_by_one"
    assert summary["selection"]["method"] == "example_surprise"
    assert summary["variants"]["example_damped"]["specification"]["factor"] == 0.5
    assert {"base", "unsafe_experts", "example_damped"} == {
        row["variant"] for row in summary["measurements"] if row["metric"] == "example_words"
    }
    assert "example_requests" in {row["task"] for row in summary["measurements"]}
    exported = harness(packages, "export", str(run), str(run.parent / "csv"), "--format", "example_csv")
    assert exported.returncode == 0, exported.stderr
    assert "example_words" in (run.parent / "csv" / "figures.csv").read_text()


def raises(site: Path) -> None:
    (site / "harness_example" / "judge.py").write_text("import a_library_that_is_not_there\n")


def lacks_the_attribute(site: Path) -> None:
    edit(site / "harness_example" / "metric.py", "\nWORDS =", "\nWORD =")


def is_another_thing(site: Path) -> None:
    edit(site / "harness_example" / "objective.py", '= Objective("refuse", smoothed)', "= smoothed")


def is_called_like_ours(site: Path) -> None:
    (points,) = site.glob("*.dist-info/entry_points.txt")
    edit(points, "example_apology =", "builtin =")


def has_a_broken_file(site: Path) -> None:
    edit(site / "harness_example" / "tasks" / "example_requests.yaml", "kind: benign", "kind: odd")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


BREAKS = {
    raises: ("judge example_apology: ", ["judges", "show", "example_apology"]),
    lacks_the_attribute: ("metric example_words: ", ["plugins", "check"]),
    is_another_thing: (
        "objective example_refuse_gently: ",
        ["run", "--objectives", "example_refuse_gently=1"],
    ),
    is_called_like_ours: ("judge builtin: ", ["plugins", "check"]),
    has_a_broken_file: ("task example_requests: ", ["run", "--tasks", "example_requests,demo_harmful"]),
}


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda each: each.__name__)
def test_a_broken_plugin_is_one_line_and_stops_nothing_else(packages, tmp_path, break_it):
    line, uses = BREAKS[break_it]
    site = shutil.copytree(packages, tmp_path / "site")
    break_it(site)
    assert harness(site, "plugins", "list").returncode == 0
    checked = harness(site, "plugins", "check")
    assert checked.returncode == 2
    assert sum(row.startswith(line) for row in checked.stdout.splitlines()) == 1
    used = harness(site, *uses, *(["--output", str(tmp_path / "none")] if uses[0] == "run" else []))
    assert used.returncode == 2, used.stdout
    assert "Traceback" not in used.stderr
    assert used.stderr.count("\n") <= 1
    assert not (tmp_path / "none").exists()
    for words in (["judges", "list"], ["tasks", "list"], ["baselines", "list"]):
        other = harness(site, *words)
        assert other.returncode == 0, other.stderr
        assert other.stderr.count("\n") <= 1


def test_a_finished_run_is_measured_again_without_a_broken_metric(packages, run, tmp_path):
    site = shutil.copytree(packages, tmp_path / "site")
    copy = shutil.copytree(run, tmp_path / "run")
    edit(site / "harness_example" / "metric.py", "words = [", "words = 1 / 0, [")
    measured = harness(site, "measure", str(copy))
    assert measured.returncode == 0, measured.stderr
    assert measured.stderr.count("metric 'example_words'") == 1
    metrics = {row["metric"] for row in json.loads((copy / "summary.json").read_text())["measurements"]}
    assert "refusal_rate" in metrics
    assert "example_words" not in metrics


def test_without_a_plugin_the_list_says_so(capsys):
    assert main(["plugins", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
