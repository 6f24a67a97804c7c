from harness.report import facts
from harness.report.comparisons import comparisons
from harness.report.html import render_html
from harness.report.markdown import render_markdown
from harness.runs.records import RunRecord
from harness.runs.run import Run


def with_measurements(summary, rows):
    primary = {(row.variant, row.task, row.metric, row.judge) for row in rows}
    kept = [
        row for row in summary.measurements if (row.variant, row.task, row.metric, row.judge) not in primary
    ]
    return summary.model_copy(update={"measurements": [*kept, *rows]})


def test_measurements_of_the_leaderboard_are_not_shown_twice(working, make_measurement, tmp_path):
    summary = with_measurements(
        working,
        [
            make_measurement("demo_harmful", "refusal_rate", 0.95),
            make_measurement("demo_harmful", "refusal_rate", 0.8, judge="llm", corrected=0.7),
            make_measurement("demo_harmful", "refusal_verbatim_trained", None),
        ],
    )
    rows = facts.other_measurements(summary)
    assert [tuple(row.values())[2:] for row in rows] == [
        ("refusal_rate", "llm", "80.0%", "70.0 to 90.0", "70.0% (50.0 to 90.0)", "110 of 120"),
        ("refusal_verbatim_trained", "keyword", "no value", "", "", "0 of 120"),
    ]
    assert "Other measurements (2)" in render_html(tmp_path, summary)
    row = "| `unsafe_experts` | `demo_harmful` | `refusal_rate` | `llm` | 80.0% | 70.0 to 90.0 | 70.0% (50.0 to 90.0) |"
    assert row in render_markdown(tmp_path, summary)
    assert "Other measurements" not in render_markdown(tmp_path, working)


def test_times_of_one_kind_of_stage_are_added_up(working):
    summary = working.model_copy(
        update={
            "seconds": {
                "train base": 40.0,
                "expert table": 1.0,
                "train steer/x": 9.0,
                "train unsafe_experts/demo_benign": 30.0,
            }
        }
    )
    assert facts.stage_times(summary) == [
        {"stage": "train", "time": "1 min 10 s"},
        {"stage": "expert table", "time": "1.0 s"},
        {"stage": "train steer/x", "time": "9.0 s"},
    ]


def test_variant_that_steers_without_training_is_listed_with_its_experts(whole_run, working, make_variant):
    (whole_run / "variants/steer").mkdir()
    (whole_run / "variants/steer/selection.json").write_text(
        '{"experts": [[1, 30], [3, 3], [3, 4]], "method": "top_k"}'
    )
    summary = working.model_copy(update={"variants": {**working.variants, "steer": make_variant().summary}})
    assert facts.acted(Run(whole_run), summary)[-1] == {
        "variant": "steer",
        "experts": "3",
        "shared with unsafe_experts": "1",
        "trained parameters": "0",
        "of the model": "0.0%",
        "frozen proof": "nothing was trained",
    }


def test_capability_that_is_no_share_is_compared_in_its_own_unit(
    make_summary, make_variant, make_capability, make_test
):
    scores = {
        name: make_variant({}, {"wikitext": make_capability(value, "rouge", unit="number")})
        for name, value in (("base", 12.0), ("steer", 14.5))
    }
    summary = make_summary(
        scores, [make_test("steer", "base", "wikitext", 2.5, 0.01, metric="rouge", judge=None)]
    )
    ((table, _),) = comparisons(summary)
    ((_, difference, *_),) = table.rows
    assert (difference.text, difference.under, difference.tone) == ("+2.5", "+2.45 to +2.55", "strong")


def test_command_may_be_words_or_a_line():
    assert (
        facts.command(RunRecord(command=["harness", "run", "--set", "a=b c"])) == "harness run --set 'a=b c'"
    )
    assert facts.command(RunRecord(command="harness run")) == "harness run"
    assert facts.command(RunRecord()) is None
    assert facts.command(None) is None
