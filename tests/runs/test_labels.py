"""Labels of a run's own answers: which are drawn, which rates they correct, and what is refused."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest
import synthetic_runs

from harness.analysis.labelling import Labelling, draw_answers
from harness.base.errors import BadInputError
from harness.base.files import read_json, read_jsonl, write_jsonl
from harness.cli.main import main
from harness.metrics.corrected import Drawn, prediction_powered
from harness.runs.integrity import verify_run
from harness.runs.labels import CHANGED, NONE, TOO_FEW, UNFINISHED
from harness.runs.run_folder import RunFolder
from harness.runs.summary import read_summary

# In the small run base declines 4 of 40 harmful prompts, system_prompt all, unsafe_experts 38.
MISSED = {f"h-{number:03}" for number in range(1, 40, 4)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return synthetic_runs.write_run(tmp_path_factory.mktemp("labels") / "small", synthetic_runs.small())


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def person(answer):
    """Return what a person calls an answer: of those that comply, some prompts' are refusals all the same."""
    declines = answer.response == synthetic_runs.DECLINES
    return "refusal" if declines or answer.drawn[0].prompt in MISSED else "compliance"


def label(run, path, per_verdict=25, but_for=0, **how):
    """Label all answers that are drawn, but for the last ones."""
    draw = draw_answers(run, per_verdict, **how)
    labelling = Labelling(draw, path)
    for answer in draw.answers[: len(draw.answers) - but_for]:
        labelling.label(answer.id, person(answer))
    return path


def measured(run, labels):
    assert main(["measure", str(run), "--labels", str(labels)]) == 0
    return read_summary(run)


def refused(run, labels, capsys):
    before = read_json(run / "run.json")
    capsys.readouterr()
    assert main(["measure", str(run), "--labels", str(labels)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert read_json(run / "run.json") == before
    verify_run(run)
    return error


def strata(draw):
    """Count the drawn answers by variant, task and verdict."""
    return Counter(
        (stratum.variant, answer.task, stratum.verdict) for answer in draw.answers for stratum in answer.drawn
    )


def test_25_answers_of_each_variant_task_and_verdict_are_drawn_or_all_there_are(run):
    drawn = strata(draw_answers(run))
    assert drawn["base", "demo_harmful", "refusal"] == 4
    assert drawn["base", "demo_harmful", "compliance"] == 25
    assert drawn["unsafe_experts", "demo_harmful", "refusal"] == 25
    assert drawn["unsafe_experts", "demo_harmful", "compliance"] == 2
    assert ("base", "demo_benign", "refusal") not in drawn


def test_each_answer_is_drawn_with_a_recorded_probability(run):
    probabilities = {
        (stratum.variant, stratum.verdict): stratum.probability
        for answer in draw_answers(run).answers
        if answer.task == "demo_harmful"
        for stratum in answer.drawn
    }
    assert probabilities["base", "refusal"] == 1.0
    assert probabilities["base", "compliance"] == pytest.approx(25 / 36)
    assert probabilities["system_prompt", "refusal"] == pytest.approx(25 / 40)


def test_every_answer_of_a_stratum_is_drawn_about_as_often_as_recorded(run):
    times = Counter(
        stratum.prompt
        for seed in range(200)
        for answer in draw_answers(run, seed=seed).answers
        for stratum in answer.drawn
        if (stratum.variant, answer.task, stratum.verdict) == ("base", "demo_harmful", "compliance")
    )
    assert len(times) == 36
    # 25 of 36 in 200 draws are 139, with a standard deviation of 6.5.
    assert all(abs(count - 139) < 30 for count in times.values())


def test_an_answer_that_several_variants_gave_is_shown_once_and_counts_for_each(run):
    answers = draw_answers(run).answers
    assert len({(answer.task, answer.prompt, answer.response) for answer in answers}) == len(answers)
    shared = [{stratum.variant for stratum in answer.drawn} for answer in answers]
    assert {"unsafe_experts", "system_prompt"} in shared
    # Three variants comply with nearly the same 36 prompts: they share most of their 25.
    assert sum(shared_by >= {"base", "random_experts_2"} for shared_by in shared) > 40


def test_a_draw_is_the_same_each_time_random_in_order_and_another_by_another_seed(run):
    ids = [answer.id for answer in draw_answers(run).answers]
    assert ids == [answer.id for answer in draw_answers(run).answers]
    assert ids != [answer.id for answer in draw_answers(run, seed=1).answers]


def test_stopping_early_leaves_labels_of_every_stratum(run):
    draw = draw_answers(run)
    first = {
        (stratum.variant, answer.task, stratum.verdict)
        for answer in draw.answers[:30]
        for stratum in answer.drawn
    }
    assert first == set(strata(draw))


def test_answers_of_one_variant_are_labelled_by_themselves_in_the_same_draw(run, tmp_path):
    everything = {answer.id: answer for answer in draw_answers(run).answers}
    of_base = draw_answers(run, variants=["base"]).answers
    assert all(everything[answer.id] == answer for answer in of_base)
    assert all(any(stratum.variant == "base" for stratum in answer.drawn) for answer in of_base)
    summary = measured(run, label(run, tmp_path / "labels.jsonl", variants=["base"]))
    assert summary.figure("base", "demo_harmful", "refusal_rate", "keyword").corrected is not None
    assert summary.figure("steer", "demo_harmful", "refusal_rate", "keyword") is None
    row = summary.figure("unsafe_experts", "demo_harmful", "refusal_rate", "keyword")
    assert (row.corrected, row.not_corrected) == (None, TOO_FEW)


def test_labels_correct_the_rates_of_the_answers_they_are_of(run, tmp_path):
    labels = label(run, tmp_path / "labels.jsonl")
    summary = measured(run, labels)
    called = [
        row["label"]
        for row in read_jsonl(labels)
        if any((s["variant"], s["verdict"]) == ("base", "compliance") for s in row["drawn"])
        and row["task"] == "demo_harmful"
    ]
    assert len(called) == 25
    row = summary.figure("base", "demo_harmful", "refusal_rate", "keyword")
    # 4 of 40 are called refusals, and are; of the 36 others, the share that the labels find.
    assert row.value == pytest.approx(0.1)
    assert row.corrected.value == pytest.approx(0.1 + 0.9 * called.count("refusal") / 25)
    assert row.corrected.low < row.corrected.value < row.corrected.high
    assert row.not_corrected is None
    everywhere = [row for row in summary.measurements if row.metric == "refusal_rate"]
    assert all(row.corrected for row in everywhere)
    verify_run(run)


def test_labels_of_prompts_that_repeat_one_another_leave_a_corrected_rate_less_sure(run, tmp_path):
    small = synthetic_runs.small()
    harmful = synthetic_runs.Task("harmful", synthetic_runs.prompts("h", 40, twins=20))
    made = replace(small, tasks={**small.tasks, "demo_harmful": harmful})
    repeated = synthetic_runs.write_run(tmp_path / "repeated", made)
    alike, labels = (label(each, tmp_path / f"{each.name}.jsonl", 40) for each in (run, repeated))
    different, row = (
        measured(folder, file).figure("base", "demo_harmful", "refusal_rate", "keyword")
        for folder, file in ((run, alike), (repeated, labels))
    )
    assert (different.clusters, row.clusters) == (None, 20)
    assert row.corrected.value == pytest.approx(different.corrected.value)
    # Beside the interval with labels that count as so many different prompts: the judge's own rate is less sure there.
    drawn = [
        [each["label"] == "refusal" for each in read_jsonl(labels) if is_of(each, verdict)]
        for verdict in ("refusal", "compliance")
    ]
    share = (row.value, row.low, row.high)
    independent = prediction_powered(share, *(Drawn(sum(each), len(each)) for each in drawn))
    assert row.corrected.low < independent.low
    assert row.corrected.high > independent.high


def is_of(row, verdict, variant="base"):
    """Say whether a label was drawn among a variant's answers to demo_harmful with a verdict."""
    strata = [(each["variant"], each["verdict"]) for each in row["drawn"]]
    return row["task"] == "demo_harmful" and (variant, verdict) in strata


def test_labels_stay_in_the_run_and_are_recorded(run, tmp_path):
    labels = label(run, tmp_path / "labels.jsonl")
    before = measured(run, labels)
    labels.unlink()
    (run / "summary.json").unlink()
    assert main(["measure", str(run)]) == 0
    assert read_summary(run) == before
    recorded = read_json(run / "run.json")["labels"]
    assert (recorded["file"], recorded["n"]) == ("labels.jsonl", before.judges["keyword"].own.n)
    assert main(["evaluate", str(run), "--judge", "builtin"]) == 0
    row = read_summary(run).figure("base", "demo_harmful", "refusal_rate", "keyword")
    assert row == before.figure("base", "demo_harmful", "refusal_rate", "keyword")


def test_a_partial_refusal_counts_as_a_refusal(run, tmp_path):
    labels = label(run, tmp_path / "labels.jsonl")
    before = measured(run, labels).figure("base", "demo_harmful", "refusal_rate", "keyword")
    rows = read_jsonl(labels)
    write_jsonl(
        labels, [row | ({"label": "partial refusal"} if row["label"] == "refusal" else {}) for row in rows]
    )
    assert measured(run, labels).figure("base", "demo_harmful", "refusal_rate", "keyword") == before


def test_whether_the_judge_errs_differently_is_computed_and_shown(run, tmp_path):
    own = measured(run, label(run, tmp_path / "labels.jsonl")).judges["keyword"].own
    assert {(part.variant, part.task) for part in own.parts} >= {("base", "demo_harmful")}
    by_part = {(part.variant, part.task): part for part in own.parts}
    assert by_part["system_prompt", "demo_harmful"].sensitivity == 1.0
    assert by_part["base", "demo_harmful"].sensitivity < 0.5
    assert own.errors_differ < 0.05
    report = (run / "report.md").read_text()
    assert "Its errors differ between them (p" in report
    assert f"{own.n} answers of this run are labelled: by them, keyword has sensitivity " in report


def test_answers_to_prompts_that_repeat_one_another_are_one_sign_of_the_judge_s_errors(tmp_path):
    small, differ = synthetic_runs.small(), []
    for n, twins in ((20, 0), (40, 20)):
        harmful = synthetic_runs.Task("harmful", synthetic_runs.prompts("h", n, twins=twins))
        made = replace(small, tasks={**small.tasks, "demo_harmful": harmful})
        run = synthetic_runs.write_run(tmp_path / str(n), made)
        draw = draw_answers(run, 40)
        labelling = Labelling(draw, tmp_path / f"{n}.jsonl")
        for answer in draw.answers:
            # One prompt and its twin make people call some answers refusals that are none to the judge.
            missed = {stratum.prompt for stratum in answer.drawn} & {"h-001", "h-021"}
            declines = answer.response == synthetic_runs.DECLINES
            labelling.label(answer.id, "refusal" if declines or missed else "compliance")
        differ.append(measured(run, labelling.path).judges["keyword"].own.errors_differ)
    assert differ[0] == differ[1]
    assert 0.01 < differ[0] < 1


def rates(summary, task="demo_harmful"):
    """Return the primary judge's rates of a task by variant."""
    return {
        row.variant: row
        for row in summary.measurements
        if (row.task, row.metric, row.judge) == (task, "refusal_rate", "keyword")
    }


def reasons(summary, task="demo_harmful"):
    return {row.not_corrected for row in rates(summary, task).values()}


def test_without_labels_no_rate_is_corrected_whatever_card_there_is(run):
    summary = read_summary(run)
    assert summary.judges["keyword"].sensitivity is not None
    assert reasons(summary) == {NONE}


def test_fewer_labels_than_25_per_verdict_correct_nothing(run, tmp_path):
    summary = measured(run, label(run, tmp_path / "labels.jsonl", per_verdict=24))
    assert reasons(summary) == {TOO_FEW}
    assert summary.judges["keyword"].own.parts == []
    assert "no rate could be corrected by them" in (run / "report.md").read_text()


def test_a_draw_that_is_not_labelled_to_its_end_corrects_only_what_is_whole(run, tmp_path):
    labels = label(run, tmp_path / "labels.jsonl", per_verdict=30)
    rows = read_jsonl(labels)
    last = next(
        row
        for row in reversed(rows)
        if row["task"] == "demo_harmful" and "base" in {stratum["variant"] for stratum in row["drawn"]}
    )
    write_jsonl(labels, [row for row in rows if row != last])
    found = rates(measured(run, labels))
    missing = {stratum["variant"] for stratum in last["drawn"]}
    assert {name for name, row in found.items() if row.not_corrected == UNFINISHED} == missing
    assert all(found[name].corrected for name in found.keys() - missing)


def test_labels_by_one_judge_s_verdicts_correct_no_other_judge(run, tmp_path):
    measured(run, label(run, tmp_path / "labels.jsonl"))
    assert main(["evaluate", str(run), "--judge", "keyword_gcg"]) == 0
    row = read_summary(run).figure("base", "demo_harmful", "refusal_rate", "keyword_gcg")
    assert row.not_corrected == "the labelled answers were drawn by the verdicts of keyword"


def test_labels_of_verdicts_that_have_changed_since_correct_nothing(run, tmp_path):
    measured(run, label(run, tmp_path / "labels.jsonl"))
    path = run / "variants/base/verdicts/demo_harmful.keyword.jsonl"
    first, *rest = read_jsonl(path)
    assert first["label"] == "refusal"
    write_jsonl(path, [{**first, "label": "compliance"}, *rest])
    RunFolder(run).write_manifest()
    assert main(["measure", str(run)]) == 0
    rows = rates(read_summary(run))
    assert rows["base"].not_corrected == CHANGED
    assert rows["unsafe_experts"].corrected is not None


def test_a_verdict_that_has_changed_on_an_answer_that_was_not_drawn_spoils_the_draw_too(run, tmp_path):
    labels = label(run, tmp_path / "labels.jsonl")
    measured(run, labels)
    drawn = {
        stratum["prompt"]
        for row in read_jsonl(labels)
        if is_of(row, "refusal", "unsafe_experts")
        for stratum in row["drawn"]
    }
    path = run / "variants/unsafe_experts/verdicts/demo_harmful.keyword.jsonl"
    rows = read_jsonl(path)
    other = next(row for row in rows if row["label"] == "refusal" and row["id"] not in drawn)
    write_jsonl(path, [{**row, "label": "compliance"} if row == other else row for row in rows])
    RunFolder(run).write_manifest()
    assert main(["measure", str(run)]) == 0
    assert rates(read_summary(run))["unsafe_experts"].not_corrected == CHANGED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drawn": None}, "row 1: drawn: missing; expected a file of `harness judges label`"),
        ({"judge": "builtin"}, "row 1: judge: expected 'keyword', the judge of this run, found 'builtin'"),
        ({"task": "demo_harmfull"}, "no task 'demo_harmfull' in this run, did you mean 'demo_harmful'?"),
        ({"response": "Another."}, "is not this run's, or its verdict is another one now"),
        ({"label": "maybe"}, "label: "),
        ({"seed": 7}, "its answers are of several draws"),
        ({"id": "base/demo_harmful/twice"}, "id 'base/demo_harmful/twice' is given twice"),
    ],
)
def test_labels_that_are_not_of_this_run_are_refused_in_one_line(run, tmp_path, capsys, change, message):
    labels = label(run, tmp_path / "labels.jsonl")
    first, second, *rest = read_jsonl(labels)
    first |= change
    if change.get("drawn", ...) is None:
        del first["drawn"]
    second |= {"id": first["id"]} if "id" in change else {}
    write_jsonl(labels, [first, second, *rest])
    assert message in refused(run, labels, capsys)


def test_a_file_that_is_not_there_or_empty_is_refused_in_one_line(run, tmp_path, capsys):
    assert "no such file" in refused(run, tmp_path / "none.jsonl", capsys)
    (tmp_path / "empty.jsonl").touch()
    assert "found no rows" in refused(run, tmp_path / "empty.jsonl", capsys)


def test_a_folder_without_a_finished_run_or_an_unknown_variant_is_refused(run, tmp_path):
    with pytest.raises(BadInputError, match="is not the folder of a run"):
        draw_answers(tmp_path / "none")
    with pytest.raises(BadInputError, match="unknown variant 'bas', did you mean 'base'"):
        draw_answers(run, variants=["bas"])


def test_labels_of_harm_are_asked_of_harmful_answers_alone_and_correct_the_rate_of_harm(tmp_path):
    run = synthetic_runs.write_run(tmp_path / "rich", synthetic_runs.rich())
    draw = draw_answers(run, quantity="harmfulness")
    assert draw.judge == "words_of_harm"
    assert {answer.task for answer in draw.answers} <= {
        *("made_harmful", "made_harmful@forced", "made_other", "made_other@forced")
    }
    labels = tmp_path / "labels.jsonl"
    labelling = Labelling(draw, labels)
    missed = draw.answers[0].drawn[0].prompt
    for answer in draw.answers:
        is_harmful = "dangerous" in answer.response or answer.drawn[0].prompt == missed
        labelling.label(answer.id, "harmful" if is_harmful else "harmless")
    with synthetic_runs.words_of_harm():
        summary = measured(run, labels)
    row = summary.figure("base", "made_harmful", "harmful_rate", "words_of_harm")
    assert row.corrected is not None
    assert row.corrected.value >= row.value
    refusal = summary.figure("base", "made_harmful", "refusal_rate", summary.judge)
    assert refusal.not_corrected == NONE
    assert summary.judges["words_of_harm"].own.n == len(draw.answers)
    assert (run / "judges" / "labels.harmfulness.jsonl").is_file()
    wrong = [{**row, "label": "refusal"} for row in read_jsonl(labels)]
    write_jsonl(labels, wrong)
    with synthetic_runs.words_of_harm():
        assert main(["measure", str(run), "--labels", str(labels)]) == 2


def test_a_run_without_a_judge_of_harm_has_no_labels_of_harm_to_draw(run, capsys):
    assert main(["judges", "label", str(run), "--quantity", "harmfulness"]) == 2
    error = capsys.readouterr().err
    assert "--quantity harmfulness: no judge of" in error
    assert error.count("\n") == 1
