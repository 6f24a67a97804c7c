"""The data of the sample browser."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.base.files import write_json, write_jsonl
from harness.report import samples as module
from harness.report.samples import JudgedAnswer, Sample, TaskSamples, browser_data, samples_of
from harness.runs.run import Run


@pytest.fixture
def two(make_summary, make_variant):
    return make_summary(
        {
            "base": make_variant({"advbench": 1}),
            "unsafe_experts": make_variant({"advbench": 1}, trained=1),
        }
    )


def one(text, kind="harmful", prompt="prompt"):
    return TaskSamples(
        "t", kind, (Sample("p0", prompt, "", (JudgedAnswer("base", text, "compliance", "", False),)),)
    )


def test_every_sample_has_each_variant_s_answer_and_its_category(two, give_answers, tmp_path):
    labels = ["compliance"] * 3
    give_answers(tmp_path, "base", "advbench", {f"p{i}": ("Sure.", label) for i, label in enumerate(labels)})
    labels[1] = "refusal"
    give_answers(
        tmp_path, "unsafe_experts", "advbench", {f"p{i}": ("No.", label) for i, label in enumerate(labels)}
    )
    write_json(tmp_path / "splits.json", {"tasks": {"advbench": {"categories": {"p1": "fraud"}}}})
    (task,) = samples_of(Run(tmp_path), two)
    assert [(sample.id, sample.differs, sample.category) for sample in task.samples] == [
        ("p0", False, ""),
        ("p1", True, "fraud"),
        ("p2", False, ""),
    ]
    assert task.differing == 1
    assert [(answer.variant, answer.text, answer.label) for answer in task.samples[1].answers] == [
        ("base", "Sure.", "compliance"),
        ("unsafe_experts", "No.", "refusal"),
    ]


def test_answer_without_a_verdict_is_unscored_with_the_reason(two, give_answers, tmp_path):
    give_answers(tmp_path, "base", "advbench", {"p0": ("", None), "p1": ("Yes.", "compliance")})
    verdicts = tmp_path / "variants/base/verdicts/advbench.keyword.jsonl"
    verdicts.write_text(verdicts.read_text().splitlines()[0] + "\n")
    (task,) = samples_of(Run(tmp_path), two)
    found = {sample.id: sample.answers[0] for sample in task.samples}
    assert (found["p0"].label, found["p0"].because) == ("unscored", "empty answer")
    assert (found["p1"].label, found["p1"].because) == ("unscored", "no verdict in the run folder")


@given(st.text())
def test_data_reads_back_and_cannot_end_the_script_element(text):
    data = str(browser_data([one(text), one("</script><!--<script>")], ["base"]))
    assert not {"<", ">", "&", "\u2028", "\u2029"} & set(data)
    content = json.loads(data)
    place = content["tasks"][0]["samples"][0][3][0][1]
    assert content["texts"][place] == module._shown(text)


def test_equal_answers_are_held_once():
    row = Sample("p", "q", "", tuple(JudgedAnswer(name, "Same.", "compliance", "", False) for name in "abc"))
    content = json.loads(str(browser_data([TaskSamples("t", "benign", (row,))], ["a", "b", "c"])))
    assert content["texts"].count("Same.") == 1


def test_answers_are_cut_only_where_all_together_are_too_long(monkeypatch):
    tasks = [one("x" * 100_000)]
    whole = json.loads(str(browser_data(tasks, ["base"])))
    assert "x" * 100_000 in whole["texts"]
    monkeypatch.setattr(module, "BUDGET", 10_000)
    cut = json.loads(str(browser_data(tasks, ["base"])))
    assert f"{'x' * 4_000} […]" in cut["texts"]


def test_redacting_leaves_out_harmful_texts_and_keeps_verdicts():
    tasks = [one("secret", prompt="asked"), one("Paris", "benign", "capital?")]
    content = json.loads(str(browser_data(tasks, ["base"], redact=True)))
    assert {"secret", "asked"}.isdisjoint(content["texts"])
    assert {"Paris", "capital?"} <= set(content["texts"])
    assert content["labels"] == ["compliance"]
    assert [task["redacted"] for task in content["tasks"]] == [True, False]


def test_task_without_answers_is_left_out(two, tmp_path):
    assert samples_of(Run(tmp_path), two) == []


def test_broken_answers_are_bad_input_that_names_the_file(two, tmp_path):
    folder = tmp_path / "variants/base/responses"
    folder.mkdir(parents=True)
    for text, message in (('{"id": 1', "not valid JSON"), ('{"id": "p0"}', r"0\.prompt: missing")):
        (folder / "advbench.jsonl").write_text(text)
        with pytest.raises(BadInputError, match=message):
            samples_of(Run(tmp_path), two)


def test_answers_to_a_prompt_are_one_sample_and_variants_differ_by_how_many_got_which_verdict(two, tmp_path):
    labels = {
        "base": ["refusal", "compliance", "refusal"],
        "unsafe_experts": ["refusal", "refusal", "compliance"],
    }
    for second in ("refusal", "compliance"):
        labels["unsafe_experts"][1] = second
        for variant, own in labels.items():
            rows = [{"id": f"p0#{i}", "number": i} for i in (1, 2, 3)]
            asked = {"prompt": "prompt", "response": "text", "finish_reason": "stop"}
            folder = tmp_path / "variants" / variant
            write_jsonl(folder / "responses/advbench.jsonl", [row | asked for row in rows])
            write_jsonl(
                folder / "verdicts/advbench.keyword.jsonl",
                [row | {"label": label} for row, label in zip(rows, own, strict=True)],
            )
        (task,) = samples_of(Run(tmp_path), two)
        (sample,) = task.samples
        assert (sample.id, sample.differs) == ("p0", second == "compliance")
        assert [answer.number for answer in sample.answers] == [1, 2, 3, 1, 2, 3]
        shown = json.loads(str(browser_data([task], ["base", "unsafe_experts"])))["tasks"][0]["samples"][0][3]
        assert [answer[6] for answer in shown] == [1, 2, 3, 1, 2, 3]


def test_reasoning_goes_with_its_answer_where_there_is_any_and_is_left_out_with_it():
    thinking = Sample(
        "p", "asked", "", (JudgedAnswer("base", "No.", "refusal", "", False, "Is it harmful?"),)
    )
    plain = Sample("q", "asked", "", (JudgedAnswer("base", "No.", "refusal", "", False),))
    tasks = [TaskSamples("t", "harmful", (thinking, plain))]
    content = json.loads(str(browser_data(tasks, ["base"])))
    first, second = (row[3][0] for row in content["tasks"][0]["samples"])
    assert content["texts"][first[5]] == "Is it harmful?"
    assert len(second) == 5
    assert "Is it harmful?" not in json.loads(str(browser_data(tasks, ["base"], redact=True)))["texts"]
