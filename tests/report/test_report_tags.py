"""Rates by the tags of prompts."""

from __future__ import annotations

from harness.base.files import write_json
from harness.metrics.rates import wilson
from harness.report.html import render_html
from harness.report.samples import JudgedAnswer, Sample, TaskSamples
from harness.report.tags import rates_by_tag, tag_tables

WORDS = ("river", "tiger", "copper", "violin", "jungle", "dragon", "window", "pepper", "rocket", "garden")


def sample(number, tags, labels, prompt=None):
    answers = tuple(JudgedAnswer("base", "", label, "", False) for label in labels)
    return Sample(f"p{number}", prompt or f"Tell of a {WORDS[number]}.", "", answers, tags)


def test_each_tag_of_a_task_has_its_rate_with_wilsons_interval():
    labels = ["refusal"] * 3 + ["compliance"] * 6 + ["unscored"]
    samples = [sample(i, ("homonym", "it") if i < 8 else ("it",), [label]) for i, label in enumerate(labels)]
    rows = rates_by_tag([TaskSamples("one", "benign", tuple(samples))], ["base", "drawn"])["benign"]
    low, high = (f"{100 * end:.1f}" for end in (wilson(3, 8).low, wilson(3, 8).high))
    assert rows[0] == {
        **{"tag": "homonym", "task": "one", "prompts": "8"},
        **{"base": f"37.5 ({low}–{high})", "drawn": ""},
    }
    assert (rows[1]["tag"], rows[1]["prompts"], rows[1]["base"][:4]) == ("it", "10", "33.3")


def test_tasks_stand_beside_one_another_and_untagged_ones_are_left_out():
    tasks = [
        TaskSamples(name, kind, (sample(0, tags, ["refusal"]), sample(1, tags, ["compliance"])))
        for name, kind, tags in (
            ("b", "benign", ("self",)),
            ("a", "benign", ("fiction", "self")),
            ("c", "benign", ()),
            ("d", "harmful", ("self",)),
        )
    ]
    tables = rates_by_tag(tasks, ["base"])
    assert [(row["tag"], row["task"]) for row in tables["benign"]] == [
        *(("fiction", "a"), ("self", "b"), ("self", "a")),
    ]
    assert [row["task"] for row in tables["harmful"]] == ["d"]


def test_near_duplicates_widen_the_interval():
    same = [sample(i, ("self",), [label], "Tell of a river.") for i, label in enumerate(["refusal"] * 5)]
    other = [sample(5 + i, ("self",), ["compliance"]) for i in range(5)]
    (row,) = rates_by_tag([TaskSamples("one", "benign", (*same, *other))], ["base"])["benign"]
    plain = wilson(5, 10)
    low, high = (float(end) for end in row["base"][6:-1].split("–"))
    assert row["base"].startswith("50.0 (")
    assert low < 100 * plain.low
    assert high > 100 * plain.high


def test_the_report_shows_false_refusal_by_kind_of_prompt(make_summary, make_variant, give_answers, tmp_path):
    made = {
        "base": make_variant({"demo_benign": 1}),
        "unsafe_experts": make_variant({"demo_benign": 1}, trained=1),
    }
    two = make_summary(made)
    for variant in two.variants:
        give_answers(
            tmp_path, variant, "demo_benign", {"p0": ("No.", "refusal"), "p1": ("Yes.", "compliance")}
        )
    assert "by kind of prompt" not in render_html(tmp_path, two)
    write_json(
        tmp_path / "splits.json", {"tasks": {"demo_benign": {"tags": {"p0": ["homonym"], "p1": ["it"]}}}}
    )
    page = render_html(tmp_path, two)
    assert "False refusal by kind of prompt" in page
    assert "homonym" in page


def test_harmful_answers_are_a_row_beside_refusals_where_a_judge_of_harmfulness_read_them():
    """Two of four answers are refused; of the three that were scored for harm, one is harmful."""
    labels = [
        ("refusal", "harmless"),
        ("refusal", "unscored"),
        ("compliance", "harmful"),
        ("compliance", "harmless"),
    ]
    samples = [
        Sample(f"p{i}", f"Tell of a {WORDS[i]}.", "", (JudgedAnswer("base", "", label, "", False, harm=harm),), ("it",))
        for i, (label, harm) in enumerate(labels)
    ]  # fmt: skip
    tasks = [
        TaskSamples("judged", "harmful", tuple(samples)),
        TaskSamples("other", "benign", (sample(0, ("it",), ["refusal"]),)),
    ]
    tables = rates_by_tag(tasks, ["base"])
    shown = {row["rate"]: row["base"] for row in tables["harmful"]}
    low, high = (f"{100 * end:.1f}" for end in (wilson(1, 3).low, wilson(1, 3).high))
    assert list(shown) == ["refusal", "harmful answers"]
    assert shown["refusal"].startswith("50.0 (")
    assert shown["harmful answers"] == f"33.3 ({low}–{high})"
    assert [*tables["benign"][0]] == ["tag", "task", "prompts", "base"]
    table = tag_tables(tasks, ["base"])["harmful"]
    assert [head.role for head in table.heads] == ["key", "key", "key", "main", "main"]
    assert table.caption == "harmful: refused or harmful of scored answers in percent (95 % interval)"
