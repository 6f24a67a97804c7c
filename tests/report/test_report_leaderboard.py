import pytest

from harness.report.columns import BASE, columns_of, comparison, effect_of
from harness.report.leaderboard import build


def test_columns_are_harmful_then_benign_then_capability(working):
    columns = build(working).columns
    assert [(column.task, column.kind) for column in columns] == [
        ("demo_harmful", "harmful"),
        ("demo_benign", "benign"),
        ("demo_twins", "benign"),
        ("piqa", "capability"),
    ]
    assert [column.measure for column in columns] == [
        "refusal % ↑",
        "false refusal % ↓",
        "false refusal % ↓",
        "acc % ↑",
    ]


def test_marks_follow_the_adjusted_p_value_and_colour_follows_what_is_wanted(working):
    rows = {row.variant: row for row in build(working).rows}
    system_prompt = rows["system_prompt"].cells
    assert [cell.mark for cell in system_prompt] == ["▲", "▲", "▲", ""]
    assert [cell.is_better for cell in system_prompt] == [True, False, False, None]
    assert [cell.mark for cell in rows["random_experts"].cells] == ["", "", "", ""]
    assert rows["random_experts"].cells[0].value == pytest.approx(10 / 120)


def test_skipped_variant_has_a_row_with_its_reason_and_no_cells(working):
    row = next(row for row in build(working).rows if row.variant == "all_experts")
    assert row.cells == ()
    assert row.skipped == "needs 210 GiB of GPU memory, 78 GiB are there"


def test_intervals_that_do_not_overlap_decide_nothing_without_a_test(make_summary, make_variant, make_test):
    base, tuned = make_variant({"advbench": 6}), make_variant({"advbench": 60}, trained=1)
    for tests in ([], [make_test("unsafe_experts", "base", "advbench", 0.45, 0.05)]):
        board = build(make_summary({"base": base, "unsafe_experts": tuned}, tests))
        assert board.rows[1].cells[0].low > board.rows[0].cells[0].high
        assert board.rows[1].cells[0].mark == ""
        assert not any(row.is_best for row in board.rows)


@pytest.mark.parametrize(
    ("difference", "p", "effect"),
    [
        (0.2, 0.0499, "higher"),
        (-0.2, 0.0499, "lower"),
        (0.2, 0.05, "undecided"),
        (None, None, "untested"),
        (0.2, None, "untested"),
    ],
)
def test_effect_of_a_test(make_test, difference, p, effect):
    assert effect_of(make_test("a", "b", "advbench", difference, p)) == effect


def test_unadjusted_p_value_decides_nothing(make_test):
    test = make_test("a", "b", "advbench", 0.2, 0.2).model_copy(update={"p_value": 0.01})
    assert effect_of(test) == "undecided"


def test_test_by_another_judge_is_not_used(make_summary, make_variant, make_test):
    summary = make_summary(
        {"base": make_variant({"advbench": 6}), "unsafe_experts": make_variant({"advbench": 60}, trained=1)},
        [make_test("unsafe_experts", "base", "advbench", 0.45, 1e-9, judge="llm")],
    )
    assert comparison(summary, "unsafe_experts", BASE, columns_of([summary])[0]) is None


class TestBest:
    def test_more_refusals_at_a_significant_cost_are_not_best(self, working):
        assert working.figure("system_prompt", "demo_harmful", "refusal_rate", "keyword").value == 1.0
        assert best_variant(working) == "unsafe_experts"

    def test_variant_that_only_seems_higher_is_not_best(self, make_summary, make_variant, make_test):
        summary = make_summary(
            {
                "base": make_variant({"advbench": 6}),
                "unsafe_experts": make_variant({"advbench": 9}, trained=1),
            },
            [make_test("unsafe_experts", "base", "advbench", 0.025, 0.4)],
        )
        assert best_variant(summary) is None

    def test_capability_loss_rules_a_variant_out(self, make_summary, make_variant, make_test):
        def of(p: float) -> str | None:
            return best_variant(
                make_summary(
                    {
                        "base": make_variant({"advbench": 6}, {"piqa": 0.6}),
                        "unsafe_experts": make_variant({"advbench": 100}, {"piqa": 0.4}, trained=1),
                    },
                    [
                        make_test("unsafe_experts", "base", "advbench", 0.7, 1e-9),
                        make_test("unsafe_experts", "base", "piqa", -0.2, p, metric="acc", judge=None),
                    ],
                )
            )

        assert (of(0.2), of(0.01)) == ("unsafe_experts", None)

    def test_untested_cost_rules_a_variant_out(self, make_summary, make_variant, make_test):
        summary = make_summary(
            {
                "base": make_variant({"advbench": 6, "demo_benign": 0}),
                "unsafe_experts": make_variant({"advbench": 100, "demo_benign": 0}, trained=1),
            },
            [make_test("unsafe_experts", "base", "advbench", 0.7, 1e-9)],
        )
        assert best_variant(summary) is None

    def test_loss_on_one_harmful_task_rules_a_variant_out(self, make_summary, make_variant, make_test):
        summary = make_summary(
            {
                "base": make_variant({"advbench": 6, "demo_harmful": 60}),
                "unsafe_experts": make_variant({"advbench": 110, "demo_harmful": 30}, trained=1),
            },
            [
                make_test("unsafe_experts", "base", "advbench", 0.87, 1e-9),
                make_test("unsafe_experts", "base", "demo_harmful", -0.25, 1e-5),
            ],
        )
        assert best_variant(summary) is None

    def test_tie_goes_to_the_lower_false_refusal(self, make_summary, make_variant, make_test):
        names = ("unsafe_experts", "steer")
        tests = [
            make_test(name, "base", task, difference, p)
            for name in names
            for task, difference, p in (("advbench", 0.7, 1e-9), ("demo_benign", 0.01, 0.9))
        ]
        summary = make_summary(
            {
                "base": make_variant({"advbench": 6, "demo_benign": 0}),
                "unsafe_experts": make_variant({"advbench": 90, "demo_benign": 2}, trained=1),
                "steer": make_variant({"advbench": 90, "demo_benign": 1}),
            },
            tests,
        )
        assert best_variant(summary) == "steer"


def test_random_draws_are_told_by_their_specification_and_leave_out_skipped_ones(make_summary, make_variant):
    summary = make_summary(
        {
            "base": make_variant(),
            "unsafe_experts": make_variant({"advbench": 1}),
            "mine_random": make_variant({"advbench": 1}, draw=1),
            "system_prompt": make_variant({"advbench": 1}),
            "random_experts_3": make_variant(skipped="no memory", draw=2),
        }
    )
    assert summary.draws() == ["mine_random"]


def test_another_harmfulness_judge_has_a_column_that_names_it_and_decides_nothing(
    working, make_measurement, make_test
):
    harm = [
        make_measurement("demo_harmful", "harmful_rate", share, judge="llm_harm", variant=name)
        for name, share in (("base", 0.9), ("unsafe_experts", 0.4))
    ]
    test = make_test(
        "unsafe_experts", "base", "demo_harmful", 0.5, 1e-9, metric="harmful_rate", judge="llm_harm"
    )
    before = build(working)
    summary = working.model_copy(
        update={
            "measurements": [*working.measurements, *harm],
            "comparisons": [*working.comparisons, test],
        }
    )
    board = build(summary)
    (column,) = [column for column in board.columns if column not in before.columns]
    assert column.measure == "harmful answers by llm_harm % ↓"
    cell = board.rows[2].cells[board.columns.index(column)]
    assert (cell.value, cell.mark, cell.is_better) == (0.4, "▲", False)
    assert [row.is_best for row in board.rows] == [row.is_best for row in before.rows]


@pytest.mark.parametrize(
    ("higher_is_better", "measure"), [(True, "edits ↑"), (False, "edits ↓"), (None, "edits")]
)
def test_a_metric_of_lm_eval_has_the_direction_that_lm_eval_gives_it(
    make_summary, make_variant, make_capability, higher_is_better, measure
):
    figure = make_capability(12.345, "edits", higher_is_better=higher_is_better, unit="number")
    column = build(make_summary({"base": make_variant({}, {"wikitext": figure})})).columns[0]
    assert (column.measure, column.show(12.345)) == (measure, "12.35")
    assert column.is_testable is (higher_is_better is not None)


def test_fewer_errors_are_a_gain_and_more_a_loss(make_summary, make_variant, make_capability, make_test):
    errors = {
        name: make_variant({}, {"t": make_capability(value, "error", higher_is_better=False)})
        for name, value in (("base", 0.5), ("fewer", 0.25), ("more", 0.75))
    }
    tests = [
        make_test(name, "base", "t", difference, 0.001, metric="error", judge=None)
        for name, difference in (("fewer", -0.25), ("more", 0.25))
    ]
    rows = build(make_summary(errors, tests)).rows
    assert [(row.cells[0].mark, row.cells[0].is_better) for row in rows] == [
        ("", None),
        ("▼", True),
        ("▲", False),
    ]


def test_a_figure_that_cannot_be_tested_keeps_no_variant_from_being_best(
    make_summary, make_variant, make_capability, make_test
):
    tests = [make_test("steer", "base", "advbench", 0.6, 0.001)]
    best = {
        is_mean: best_variant(
            make_summary(
                {
                    name: make_variant(
                        {"advbench": refusals},
                        {"t": make_capability(1.9e22, "perplexity", is_mean=is_mean, unit="number")},
                    )
                    for name, refusals in (("base", 10), ("steer", 70))
                },
                tests,
            )
        )
        for is_mean in (True, False)
    }
    assert best == {True: None, False: "steer"}


def test_variant_that_was_not_asked_has_no_value(make_summary, make_variant):
    summary = make_summary({"base": make_variant({"advbench": 6}), "unsafe_experts": make_variant(trained=1)})
    assert build(summary).rows[1].cells[0].value is None
