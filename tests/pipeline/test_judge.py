"""Judging a finished run again: more verdicts beside the old ones, nothing generated."""

import shutil

import pytest

from harness.analysis.labelling import Labelling, draw_answers
from harness.base.files import read_json, read_jsonl, sha256
from harness.cli.main import main
from harness.judges.base import JUDGES, judge_all
from harness.judges.card import read_card, shipped_card, write_card
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
def run(finished, tmp_path):
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


def test_labels_of_the_run_s_own_answers_correct_its_rates(run, tmp_path):
    draw = draw_answers(run)
    labelling = Labelling(draw, tmp_path / "labels.jsonl")
    # Two compliances of each variant that the judge missed as refusals, or all there are.
    missed = {
        answer.id
        for variant in ("base", "system_prompt")
        for answer in [
            answer
            for answer in draw.answers
            if answer.task == "demo_harmful"
            and ("compliance", variant) in {(part.verdict, part.variant) for part in answer.drawn}
        ][:2]
    }
    for answer in draw.answers:
        labelling.label(answer.id, "refusal" if answer.id in missed else answer.drawn[0].verdict)
    assert main(["measure", str(run), "--labels", str(labelling.path)]) == 0
    verify_run(run)
    for variant in ("base", "system_prompt"):
        row = rates(run, variant)["demo_harmful", "keyword"]
        wrong = sum(variant in {part.variant for part in a.drawn} for a in draw.answers if a.id in missed)
        # At most 20 answers: all of them are labelled.
        assert row.corrected.value == pytest.approx(row.value + wrong / row.scored)
        assert row.corrected.low <= row.corrected.value <= row.corrected.high
        assert rates(run, variant)["demo_benign", "keyword"].corrected.value == pytest.approx(
            rates(run, variant)["demo_benign", "keyword"].value
        )
    report = (run / "report.md").read_text()
    assert f"{len(draw.answers)} answers of this run are labelled" in report
    assert "Raw and corrected rates" in (run / "report.html").read_text()
    # The same command goes on with the run, and with its labels.
    once = read_summary(run)
    assert main([*COMMAND, "--output", str(run)]) == 0
    assert read_summary(run).measurements == once.measurements


def test_without_labels_of_its_own_answers_no_rate_is_corrected_and_the_report_says_so(run):
    row = rates(run)["demo_harmful", "keyword"]
    assert row.corrected is None
    assert row.not_corrected == "no answers of this run were labelled"
    assert "Not corrected: no answers of this run were labelled" in (run / "report.md").read_text()


@pytest.fixture
def card(tmp_path):
    """A card of the keyword judge that a user made."""
    path = tmp_path / "mine.json"
    counts = shipped_card("keyword").all.model_copy(update={"n": 12})
    write_card(path, shipped_card("keyword").model_copy(update={"all": counts}))
    return path


@pytest.mark.usefixtures("no_model")
def test_a_card_is_shown_only_by_the_run_that_names_it(run, finished, card):
    before = rates(run)
    assert main(["evaluate", str(run), "--judge", "keyword", "--card", str(card)]) == 0
    assert read_summary(run).judges["keyword"].n == 12
    assert read_json(run / "run.json")["cards"] == {"keyword": {"file": "mine.json", "sha256": sha256(card)}}
    assert read_card(run / "judges" / "keyword.json") == read_card(card)
    # It corrects nothing.
    assert rates(run) == before
    # The run keeps its copy, with and without the file, when it is judged or measured again.
    card.unlink()
    for command in (["evaluate", str(run), "--judge", "keyword"], ["measure", str(run)]):
        assert main(command) == 0
        assert read_summary(run).judges["keyword"].n == 12
    assert read_summary(finished).judges["keyword"].n == 1224


def test_a_run_that_names_a_card_copies_it_before_it_starts_and_goes_on_without_the_file(run, tmp_path, card):
    assert main([*COMMAND, "--card", str(card), "--output", str(run)]) == 0
    assert read_summary(run).judges["keyword"].n == 12
    assert read_json(run / "run.json")["cards"]["keyword"]["file"] == "mine.json"
    card.unlink()
    assert main(["evaluate", str(run)]) == 0
    assert read_summary(run).judges["keyword"].n == 12
    # A command that names none shows the card that comes with the judge.
    assert main([*COMMAND, "--output", str(run)]) == 0
    assert read_summary(run).judges["keyword"].n == 1224


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judge": "builtin"}, "mine.json: judge: expected 'keyword', found 'builtin'"),
        ({"measures": "harmfulness"}, "mine.json: measures: expected 'refusal', found 'harmfulness'"),
        ({"fingerprint": "old"}, "mine.json: is of another version of keyword"),
    ],
)
def test_a_card_of_another_judge_or_quantity_is_refused_in_one_line(run, capsys, card, changes, message):
    write_card(card, read_card(card).model_copy(update=changes))
    before = read_json(run / "run.json")
    for command in (
        ["evaluate", str(run), "--judge", "keyword", "--card", str(card)],
        [*COMMAND, "--card", str(card), "--output", str(run)],
    ):
        capsys.readouterr()
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert read_json(run / "run.json") == before


def test_the_conclusion_says_how_far_the_judge_agrees_with_people(run):
    assert "The judge keyword agrees with people on 92.5%" in (run / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--judge", "keywrd"], "unknown judge 'keywrd': did you mean 'keyword'?"),
        (
            ["--judge", "builtin", "--limit", "5"],
            "--judge adds a judge to it and takes no other setting but --card",
        ),
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
