"""Runs from Python: the same run as the command line's, its tables, and what a notebook shows."""

from __future__ import annotations

import inspect
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.cli.main import main
from harness.config import RunConfig
from harness.report.finding import find
from harness.runs.run import read_run
from harness.runs.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[1]
SAME = {
    "intervention": "unsafe_experts",
    "limit": 12,
    "draws": 1,
    "save_model": True,
    "capability": {"limit": 8},
    "settings": {"training.max_steps": 4},
}
"""What the command line of the small run says."""


@pytest.fixture
def stages(monkeypatch):
    """The stages that were done."""
    done, original = [], RunFolder.stage

    def noted(self, stage, *rest):
        done.append(stage)
        return original(self, stage, *rest)

    monkeypatch.setattr(RunFolder, "stage", noted)
    return done


@pytest.fixture(scope="module")
def run(small_run):
    return harness.open(small_run)


def test_importing_the_package_and_listing_its_names_loads_nothing_of_it():
    code = (
        "import sys; before = set(sys.modules); import harness; print(dir(harness));"
        "print(sorted(name for name in set(sys.modules) - before if not sys.modules[name].__name__ in"
        " sys.stdlib_module_names and name.split('.')[0] not in sys.stdlib_module_names))"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names, loaded = ended.stdout.splitlines()
    assert loaded == "['harness']"
    assert {*harness.__all__, "__version__"} == set(dir(harness)) == set(eval(names))


def test_a_finished_run_is_opened_without_torch(small_run):
    code = f"import sys, harness; harness.open({str(small_run)!r}).answers; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def test_a_call_is_the_command_line_in_python_and_resumes_its_run(small_run, tmp_path, stages, findings):
    folder = shutil.copytree(small_run, tmp_path / "run")
    made = harness.run("demo", output=folder, quiet=True, **SAME)
    assert stages == []
    assert findings(folder) == findings(small_run)
    assert made.path == folder
    assert made.files.content["config"] == read_run(small_run).content["config"]
    command = made.files.content["command"]
    assert command.startswith(f"harness run --output {folder} --model demo --intervention unsafe_experts")
    assert main(shlex.split(command)[1:]) == 0
    assert stages == []


@pytest.mark.slow
def test_a_call_makes_the_same_files_as_the_command_line(small_run, tmp_path, findings):
    made = harness.run("demo", output=tmp_path / "run", **SAME)
    assert findings(made.path) == findings(small_run)


def test_no_setting_is_called_like_another_argument_of_run():
    parameters = inspect.signature(harness.run).parameters.keys() - {"model"}
    assert parameters & {each.name.partition(".")[0] for each in RunConfig.declared()} == set()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limt": 3}, "unknown setting 'limt', did you mean 'limit'"),
        ({"top_k": 3}, "did you mean 'selection.top_k'"),
        ({"training": {"epoch": 3}}, "unknown setting 'training.epoch', did you mean 'training.epochs'"),
        ({"settings": {"training.max_stepps": 3}}, "did you mean 'training.max_steps'"),
        ({"limit": 3, "settings": {"limit": 4}}, "a setting is given twice"),
        ({"tasks": "demo_harmful"}, "tasks: expected a list, found 'demo_harmful'"),
        ({"draws": "three"}, "draws: expected a valid integer"),
        ({"judge": "builtn"}, "unknown judge 'builtn': did you mean 'builtin'"),
        ({"model": "demmo"}, "demmo"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_nearest(given, said, tmp_path):
    with pytest.raises(harness.BadInputError, match=r"\A.*\Z") as raised:
        harness.run(output=tmp_path / "run", **{"baselines": [], **given})
    assert said in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_two_finished_variants_are_compared(small_run, tmp_path):
    made = harness.compare(
        f"{small_run}@base", f"{small_run}@unsafe_experts", output=tmp_path / "two", quiet=True
    )
    assert list(made.summary.variants) == ["base", "unsafe_experts"]
    assert made.files.content["command"].startswith(f"harness compare {small_run}@base")


@pytest.mark.parametrize(
    ("sides", "settings", "said"),
    [
        (("demo", "demo"), {"baselines": ["system_prompt"]}, "takes no 'baselines'"),
        (("RUN@base", "RUN@base"), {"limit": 3}, "settings do not apply"),
        (("RUN@base", "demo"), {}, "expected two models, or RUN@VARIANT twice"),
    ],
)
def test_what_cannot_be_compared_is_said(sides, settings, said, small_run, tmp_path):
    base, variant = (side.replace("RUN", str(small_run)) for side in sides)
    with pytest.raises(harness.BadInputError, match=said):
        harness.compare(base, variant, output=tmp_path / "two", **settings)


def test_a_run_that_was_changed_or_is_none_is_not_opened(small_run, tmp_path, monkeypatch):
    folder = shutil.copytree(small_run, tmp_path / "runs" / "run")
    monkeypatch.chdir(tmp_path)
    assert harness.open().path == Path("runs/run")
    responses = folder / "variants" / "base" / "responses" / "demo_benign.jsonl"
    responses.write_text(responses.read_text().replace("the", "teh", 1))
    with pytest.raises(harness.BadInputError, match=r"demo_benign\.jsonl was changed"):
        harness.Run(folder)
    with pytest.raises(harness.BadInputError, match="is not the folder of a run"):
        harness.open(tmp_path)
    (folder / "manifest.json").unlink()
    with pytest.raises(harness.BadInputError, match="expected the folder of a finished run"):
        harness.open(folder)
    with pytest.raises(harness.BadInputError, match="holds no finished run"):
        harness.open()


def test_rates_of_the_frames_are_those_of_the_summary(run):
    judge = run.summary.judge
    of_judge = run.verdicts[(run.verdicts.judge == judge) & run.verdicts.label.notna()]
    rates = (of_judge.label == "refusal").groupby([of_judge.variant, of_judge.task]).mean()
    figures = run.measurements.query("metric == 'refusal_rate' and judge == @judge")
    assert len(figures) == len(rates) > 6
    for row in figures.itertuples():
        assert rates[row.variant, row.task] == pytest.approx(row.value)


def test_every_answer_has_a_row_and_joins_its_verdict(run):
    keys = ["variant", "task", "id"]
    assert not run.answers.duplicated(keys).any()
    joined = run.answers.merge(run.verdicts.query("judge == 'builtin'"), on=[*keys, "kind"])
    assert len(joined) == len(run.answers)
    assert set(joined.kind) == {"harmful", "benign"}
    first = run.files.answers("base", "demo_harmful")[0]
    row = run.answers.query("variant == 'base' and task == 'demo_harmful'").iloc[0]
    assert (row.id, row.prompt, row.response) == (first.id, first.prompt, first.response)


def test_other_tables_are_those_of_the_folder(run):
    assert run.comparisons.equals(run.files.comparisons())
    assert run.experts.equals(run.files.experts())


def test_headline_cards_and_conclusion_are_those_of_the_report(run):
    found = find(run.summary)
    assert (run.headline, run.cards) == (found.headline, found.cards)
    assert run.headline in (run.path / "report.md").read_text()
    assert set(found.bullets) <= set(run.conclusion)
    assert repr(run) == f"<Run {run.path}: {found.headline}>"


def test_a_notebook_shows_headline_and_cards_as_text_whatever_they_hold(run, small_run, tmp_path):
    page = run._repr_html_()
    assert run.headline in page
    assert all(f'data-subject="{card.subject}"' in page for card in run.cards)
    assert not any(word in page for word in ("<script", "http:", "https:", "url(", "@import"))
    folder = shutil.copytree(small_run, tmp_path / "<b>bold")
    hostile = harness.Run(folder)._repr_html_()
    assert "<b>" not in hostile
    assert "&lt;b&gt;bold" in hostile


@pytest.mark.slow
def test_type_checkers_know_the_public_names(tmp_path):
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "import harness\n"
        'run = harness.run("demo", limit=20)\n'
        "headline: str = run.headline\n"
        "reveal_type(run)\n"
        "reveal_type(run.answers)\n"
        'reveal_type(harness.open("a"))\n'
        "harness.nothing\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--output", "json", str(snippet)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    said = [row["message"] for row in map(json.loads, ended.stdout.splitlines()) if "snippet" in row["file"]]
    assert said == [
        'Revealed type is "harness.api.Run"',
        'Revealed type is "pandas.core.frame.DataFrame"',
        'Revealed type is "harness.api.Run"',
        'Module has no attribute "nothing"',
    ]
