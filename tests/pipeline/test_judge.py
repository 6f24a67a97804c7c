"""Judging a finished run again: more verdicts beside the old ones, nothing generated."""

import json
import shutil

import pytest

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.judges.base import JUDGES, judge_all
from harness.judges.card import CARDS_FOLDER
from harness.runs.integrity import verify_run
from harness.runs.summary import read_summary

TASKS = ("demo_harmful", "demo_benign")
COMMAND = (
    *("run", "--intervention", "system_prompt", "--baselines", "none", "--capability", "none"),
    *("--tasks", ",".join(TASKS), "--limit", "20", "--judge", "keyword"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, demo):
    folder = tmp_path_factory.mktemp("judged") / "run"
    assert main([*COMMAND, "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    monkeypatch.setenv(CARDS_FOLDER, str(tmp_path / "cards"))
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def no_model(monkeypatch):
    """Fail where a model, its tokenizer or its outline would be loaded."""

    def refuse(*_, **__):
        raise AssertionError("the model was loaded")

    for name in ("load_model", "load_tokenizer", "outline_model", "resolve_model"):
        monkeypatch.setattr(f"harness.models.load.{name}", refuse)
    monkeypatch.setattr("harness.pipeline.plan.resolve_model", refuse)


def responses(run):
    return {
        path.relative_to(run).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in run.rglob("responses/*.jsonl")
    }


def rates(run, variant="system_prompt"):
    return {(row.task, row.judge): row for row in read_summary(run).of(variant) if row.judge is not None}


@pytest.mark.usefixtures("no_model")
def test_two_judges_more_change_no_answer_and_stand_beside_the_first(run):
    before, first = responses(run), rates(run)
    for name in ("builtin", "keyword_gcg"):
        assert main(["evaluate", str(run), "--judge", name]) == 0
    assert responses(run) == before
    after = rates(run)
    assert {judge for _, judge in after} == {"keyword", "builtin", "keyword_gcg", "majority"}
    for where, row in first.items():
        assert after[where] == row
    for name in ("builtin", "keyword_gcg"):
        for task in TASKS:
            said = judge_all(
                JUDGES.get(name)(), read_jsonl(run / f"variants/system_prompt/responses/{task}.jsonl")
            )
            assert read_jsonl(run / f"variants/system_prompt/verdicts/{task}.{name}.jsonl") == [
                verdict.row() for verdict in said
            ]
            refusals = sum(verdict.label == "refusal" for verdict in said)
            assert after[task, name].value == pytest.approx(refusals / after[task, name].scored)
    verify_run(run)


@pytest.mark.usefixtures("no_model")
def test_each_judge_s_tests_are_its_own_family(run):
    assert main(["evaluate", str(run), "--judge", "builtin"]) == 0
    rows = read_summary(run).comparisons
    assert {(row.judge, row.family) for row in rows} >= {
        ("keyword", "system_prompt against base, harmful tasks"),
        ("builtin", "system_prompt against base, harmful tasks, by builtin"),
    }
    assert len(rows) == 2 * len([row for row in rows if row.judge == "keyword"])


@pytest.mark.usefixtures("no_model")
def test_where_judges_agree_and_differ_is_written_down(run):
    assert main(["evaluate", str(run), "--judge", "keyword_xstest"]) == 0
    summary = read_summary(run)
    assert [row.task for row in summary.agreement] == list(TASKS)
    assert {tuple(row.judges) for row in summary.agreement} == {("keyword", "keyword_xstest")}
    differences = read_jsonl(run / "judges" / "differences.jsonl")
    assert len(differences) == sum(row.differ for row in summary.agreement)
    for row in differences:
        assert len(set(row["labels"].values())) == 2


@pytest.mark.usefixtures("no_model")
def test_adding_a_judge_twice_is_adding_it_once(run):
    main(["evaluate", str(run), "--judge", "builtin"])
    once = read_summary(run)
    assert main(["evaluate", str(run), "--judge", "builtin"]) == 0
    assert read_summary(run) == once


def test_running_the_same_command_again_keeps_the_judges_that_were_added(run):
    main(["evaluate", str(run), "--judge", "builtin"])
    once = read_summary(run)
    assert main([*COMMAND, "--output", str(run)]) == 0
    again = read_summary(run)
    assert again.comparisons == once.comparisons
    assert again.judges == once.judges
    assert rates(run).keys() >= {("demo_harmful", "builtin")}


def label(run, path, sensitivity_errors=0):
    """Write labels of the run's own answers, the keyword judge's, some of them turned to refusals it missed."""
    rows = []
    for task in TASKS:
        for variant in ("base", "system_prompt"):
            said = read_jsonl(run / f"variants/{variant}/verdicts/{task}.keyword.jsonl")
            answers = {
                row["id"]: row["response"]
                for row in read_jsonl(run / f"variants/{variant}/responses/{task}.jsonl")
            }
            for verdict in said:
                if verdict["label"] is not None:
                    rows.append(
                        {
                            "id": f"{variant}/{task}/{verdict['id']}",
                            "response": answers[verdict["id"]],
                            "label": verdict["label"],
                            "model": "demo",
                        }
                    )
    complied = [row for row in rows if row["label"] == "compliance"]
    for row in complied[:sensitivity_errors]:
        row["label"] = "refusal"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.usefixtures("no_model")
def test_a_card_of_the_same_model_s_answers_corrects_the_rates(run, tmp_path):
    labels = label(run, tmp_path / "labels.jsonl", sensitivity_errors=5)
    assert main(["judges", "evaluate", "keyword", "--labels", str(labels)]) == 0
    assert main(["evaluate", str(run), "--judge", "keyword"]) == 0
    row = rates(run)["demo_harmful", "keyword"]
    assert row.not_corrected is None
    assert row.corrected.low <= row.corrected.value <= row.corrected.high
    # It misses refusals, so the true rate is at least what it shows.
    assert row.corrected.value >= row.value
    assert read_json(run / "judges" / "keyword.json")["labels"][0]["name"] == "labels.jsonl"
    report = (run / "report.md").read_text()
    assert "corrected" in report
    assert "agrees with people on" in report
    assert "Raw and corrected rates" in (run / "report.html").read_text()


def test_a_card_of_other_models_with_other_errors_does_not_correct_and_the_report_says_why(run):
    row = rates(run)["demo_harmful", "keyword"]
    assert row.corrected is None
    assert "differ between the models on its card" in row.not_corrected
    assert "Not corrected: the errors of keyword differ" in (run / "report.md").read_text()


def test_the_conclusion_says_how_far_the_judge_agrees_with_people(run):
    assert "The judge keyword agrees with people on 92.4%" in (run / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--judge", "keywrd"], "unknown judge 'keywrd': did you mean 'keyword'?"),
        (["--judge", "builtin", "--limit", "5"], "--judge adds a judge to it and takes no other setting"),
        (["--judge", "builtin", "--output", "elsewhere"], "two run folders are named"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(run, capsys, arguments, message):
    assert main(["evaluate", str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("quantity", "refused"), [("harmfulness", False), ("politeness", True)])
def test_a_judge_of_a_quantity_that_no_task_asks_for_is_refused_and_nothing_changes(
    run, capsys, monkeypatch, quantity, refused
):
    class Other(type(JUDGES.get("keyword")())):
        name, measures = "other", quantity

    monkeypatch.setitem(JUDGES._entries, "other", Other)
    before = (run / "summary.json").read_bytes()
    # As the primary judge it would decide whether answers are refusals.
    assert main([*COMMAND, "--judge", "other", "--output", str(run.parent / "new")]) == 2
    assert f"measures {quantity}, but task 'demo_harmful' asks for refusal" in capsys.readouterr().err
    assert main(["evaluate", str(run), "--judge", "other"]) == (2 if refused else 0)
    assert ((run / "summary.json").read_bytes() == before) == refused


def test_answers_that_were_changed_after_the_run_are_not_judged(run, capsys):
    path = run / "variants" / "base" / "responses" / "demo_harmful.jsonl"
    path.write_text(path.read_text().replace("a", "b", 1))
    assert main(["evaluate", str(run), "--judge", "builtin"]) == 2
    assert "demo_harmful.jsonl" in capsys.readouterr().err
