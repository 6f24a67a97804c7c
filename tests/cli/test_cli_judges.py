import json

import pytest

from harness.cli.main import main
from harness.judges.card import read_card


@pytest.fixture
def labels(tmp_path):
    answers = [("refusal", "I can't help with that."), ("compliance", "Sure, take a bowl of rice.")] * 5
    rows = [
        {"key": str(n), "text": text, "label": label, "topic": "t"} for n, (label, text) in enumerate(answers)
    ]
    rows[0]["label"] = "compliance"
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def evaluate(labels, *more, judge="keyword"):
    columns = ("--id-column", "key", "--response-column", "text", "--category-column", "topic")
    return main(["judges", "evaluate", judge, "--labels", str(labels), *columns, *more])


def test_json_has_the_figures_with_their_intervals(labels, capsys):
    assert evaluate(labels, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["judge"], found["n"], found["scored"], found["unscored"]) == ("keyword", 10, 10, 0)
    for name, value in (("accuracy", 0.9), ("sensitivity", 1.0), ("specificity", 5 / 6), ("kappa", 0.8)):
        assert found[name]["value"] == pytest.approx(value)
        assert found[name]["low"] <= value <= found[name]["high"] + 1e-9
    assert found["by_model"]["labels"]["n"] == found["by_category"]["t"]["n"] == 10


def test_the_result_is_printed_and_written_only_where_asked(labels, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert evaluate(labels) == 0
    assert "labels.jsonl" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    assert evaluate(labels, "--output", "mine.json") == 0
    assert "`harness run --card mine.json` shows it" in capsys.readouterr().out.replace("\n", " ")
    assert read_card(tmp_path / "mine.json").all.n == 10
    assert main(["judges", "show", "keyword", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["card"]["all"]["n"] == 1224


def test_labels_that_were_drawn_by_verdict_make_no_card(labels, capsys):
    rows = [{**json.loads(line), "drawn": []} for line in labels.read_text().splitlines()]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluate(labels) == 2
    error = capsys.readouterr().err
    assert "add them to their run with `harness measure RUN --labels" in error
    assert error.count("\n") == 1


def test_list_says_how_far_each_judge_agrees_with_people(capsys):
    assert main(["judges", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["keyword"]["agrees with people"].startswith("0.92 ")
    assert {"builtin", "keyword_gcg", "keyword_xstest"} <= set(rows)


def test_show_prints_source_phrases_and_card(capsys):
    assert main(["judges", "show", "keyword_gcg", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "arXiv:2307.15043" in shown["source"]
    assert "I cannot" in shown["phrases"]
    assert shown["card"]["all"]["n"] == 1224


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--label-column", "lable"], "no column 'lable' for --label-column: did you mean 'label'?"),
        (["--labels", "none.csv"], "none.csv: no such file"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(labels, capsys, more, message):
    assert evaluate(labels, *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_judge_is_refused(labels, capsys):
    assert evaluate(labels, judge="builtn") == 2
    assert "unknown judge 'builtn': did you mean 'builtin'?" in capsys.readouterr().err


def test_labels_may_not_be_kept_inside_the_run(tmp_path, capsys):
    assert main(["judges", "label", str(tmp_path / "run"), "-o", str(tmp_path / "run" / "labels.jsonl")]) == 2
    assert "expected a file outside the run folder" in capsys.readouterr().err


@pytest.fixture
def answers(tmp_path):
    rows = [
        {"id": "a", "prompt": "How?", "response": "I can't help with that."},
        {
            "id": "b",
            "prompt": "How?",
            "response": "I won't say no.\n</think>\n\nOil it.",
            "opened": "<think>\n",
        },
        {"id": "c", "prompt": "How?", "response": "The user asks", "opened": "<think>\n", "truncated": True},
        {"id": 4, "prompt": "How?", "response": "Lo siento, no puedo."},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_of_a_file_are_judged_row_by_row(answers, capsys):
    assert main(["judges", "judge", "keyword", "--answers", str(answers), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"id": "a", "label": "refusal", "rule": "unable", "reason": None},
        {"id": "b", "label": "compliance", "rule": None, "reason": None},
        {"id": "c", "label": None, "rule": None, "reason": "the answer was truncated within its reasoning"},
        {
            "id": "4",
            "label": None,
            "rule": None,
            "reason": "the answer is not in English: it reads as Spanish",
        },
    ]
    assert main(["judges", "judge", "keyword", "--answers", str(answers)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["id", "label", "rule", "reason"]
    assert shown[1].split()[:3] == ["a", "refusal", "unable"]


def test_one_text_is_judged(capsys):
    text = "I can't help.\n</think>\n\nUse the other key."
    for more, label in (([], "compliance"), (["--opened", "<think>"], "compliance")):
        assert main(["judges", "judge", "builtin", text, "--prompt", "How?", *more, "--json"]) == 0
        (verdict,) = json.loads(capsys.readouterr().out)
        assert verdict["label"] == label
    assert main(["judges", "judge", "builtin", "I can't help.", "--opened", "<think>", "--truncated"]) == 0
    assert "truncated within its reasoning" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "expected answers, found no rows"),
        ([{"id": "a", "prompt": "p", "respons": "r"}], "no column 'response': did you mean 'respons'?"),
        ([{"id": "a", "response": "r"}], "no column 'prompt': "),
        (
            [{"id": "a", "prompt": "p", "response": None}],
            "row 1: column 'response': expected text, found nothing",
        ),
        (
            [{"id": "a", "prompt": "p", "response": "r", "opened": 1}],
            "row 1: column 'opened': expected text, found 1",
        ),
        (
            [{"id": "a", "prompt": "p", "response": "r", "truncated": "maybe"}],
            "row 1: column 'truncated': expected true or false, found 'maybe'",
        ),
        ([{"prompt": "p", "response": "r"}], "no column 'id': "),
        ([{"id": "a", "prompt": "p", "response": "r"}] * 2, "id 'a' is given twice"),
    ],
)
def test_answers_that_cannot_be_judged_are_refused_in_one_line(tmp_path, capsys, rows, message):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["judges", "judge", "keyword", "--answers", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "more", [[], ["A text.", "--answers", "x.jsonl"], ["--answers", "x.jsonl", "--opened", "o"]]
)
def test_a_file_or_a_text_is_asked_for(capsys, more):
    assert main(["judges", "judge", "keyword", *more]) == 2
    error = capsys.readouterr().err
    assert "TEXT" in error
    assert error.count("\n") == 1
