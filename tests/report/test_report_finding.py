"""What a run found, as every format shows it."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from harness.report.conclusion import conclude
from harness.report.finding import find, headline
from harness.report.html import render_html
from harness.report.markdown import MOST, render_markdown
from harness.report.samples import JudgedAnswer, Sample, TaskSamples, flips
from harness.report.terminal import print_report
from harness.runs.summary import JudgeSummary, read_summary


def test_a_card_has_the_figures_of_its_comparison(working):
    harm, false_refusal, capability = find(working).cards
    assert (harm.answer, harm.show(harm.base), harm.show(harm.variant)) == ("yes", "5.0%", "95.0%")
    assert (harm.change, harm.interval, harm.margin) == (
        "+90.0 points",
        "+85.0 to +95.0",
        "adjusted p < 0.001",
    )
    assert (false_refusal.answer, false_refusal.weakest) == ("no", "the weakest of 2 tasks")
    assert false_refusal.margin == "margin 5 points; more than 3.8 is ruled out"
    assert (capability.figure, capability.change) == ("acc, piqa", "-0.5 points")
    # The random draw was measured on each of them.
    assert [card.spread for card in find(working).cards] == [
        "1 random draw: 8.3%",
        "1 random draw: 0.8%",
        "1 random draw: 60.0%",
    ]


@pytest.mark.parametrize(
    ("choosing", "claim", "parts"),
    [
        ("not decided", "It is not decided by two draws.", ("It is ", "not decided", " by two draws.")),
        ("yes", "Choosing helps.", ("", "yes", ". Choosing helps.")),
        # A word within another is no answer.
        ("no", "It is not decided.", ("", "no", ". It is not decided.")),
    ],
)
def test_the_answer_is_found_within_the_claim_or_stands_before_it(working, choosing, claim, parts):
    assert replace(find(working), choosing=choosing, claim=claim).claim_parts == parts


def test_a_card_shows_the_task_that_speaks_most_against_the_intervention(
    make_summary, make_variant, make_test
):
    summary = make_summary(
        {
            "base": make_variant({"demo_harmful": 6, "advbench": 6, "demo_benign": 0, "demo_twins": 1}),
            "unsafe_experts": make_variant(
                {"demo_harmful": 99, "advbench": 8, "demo_benign": 9, "demo_twins": 40}
            ),
        },
        [
            make_test("unsafe_experts", "base", "demo_harmful", 0.8, 1e-9),
            make_test("unsafe_experts", "base", "advbench", 0.02, 0.6),
            make_test("unsafe_experts", "base", "demo_benign", 0.075, 0.2),
            make_test("unsafe_experts", "base", "demo_twins", 0.32, 1e-6),
        ],
    )
    found = find(summary)
    harm, false_refusal, capability = found.cards
    assert (harm.column.task, harm.answer, harm.tone) == ("advbench", "not shown", "open")
    assert (false_refusal.column.task, false_refusal.answer, false_refusal.tone) == (
        "demo_twins",
        "yes",
        "bad",
    )
    assert (capability.answer, capability.tone) == ("not measured", "open")
    assert found.headline == (
        "unsafe_experts refuses more harmful prompts than base on 1 of 2 harmful tasks; worse: false refusal on "
        "demo_twins; not decided: false refusal on demo_benign."
    )


def beside_base(working, **verdicts):
    """The same comparisons in a run whose intervention is the unchanged model; draws are no variants to count."""
    rows = [
        row.model_copy(update={"verdict": verdicts.get(f"{row.variant}_{row.task}", row.verdict)})
        for row in working.comparisons
    ]
    return headline(working.model_copy(update={"intervention": "base", "comparisons": rows}))


BOTH = "2 refuse more harmful prompts (system_prompt and unsafe_experts)"
GAINED = ("system_prompt_demo_harmful", "unsafe_experts_demo_harmful")


@pytest.mark.parametrize(
    ("verdicts", "words"),
    [
        (
            {},
            f"{BOTH}, 1 with a cost that is shown and 1 at no cost beyond the margins",
        ),
        (
            {"unsafe_experts_piqa": "not decided"},
            f"{BOTH}, 1 with a cost that is shown and 1 with a cost that is not decided",
        ),
        (
            {GAINED[0]: "not decided"},
            "1 refuses more harmful prompts (unsafe_experts), at no cost beyond the margins",
        ),
        (
            {
                "system_prompt_demo_benign": "no worse",
                "system_prompt_demo_twins": "no worse",
                "system_prompt_piqa": "no worse",
            },
            f"{BOTH}, all at no cost beyond the margins",
        ),
        (dict.fromkeys(GAINED, "worse"), "none is shown to refuse more harmful prompts"),
    ],
)
def test_beside_the_unchanged_model_variants_are_counted_by_gain_and_cost(working, verdicts, words):
    assert beside_base(working, **verdicts) == f"Of 2 variants beside the unchanged model {words}."


def test_of_more_than_two_variants_that_gain_the_headline_names_none(working):
    third = [
        row.model_copy(update={"variant": "mine"})
        for row in working.comparisons
        if row.variant == "system_prompt"
    ]
    variants = {**working.variants, "mine": working.variants["system_prompt"]}
    more = working.model_copy(update={"variants": variants, "comparisons": [*working.comparisons, *third]})
    assert beside_base(more).startswith(
        "Of 3 variants beside the unchanged model 3 refuse more harmful prompts, "
    )


def test_no_card_is_of_the_unchanged_model(small_run):
    summary = read_summary(small_run)
    console = Console(width=120, record=True, file=StringIO())
    for intervention, cards in (("unsafe_experts", 3), ("base", 0)):
        about = summary.model_copy(update={"intervention": intervention})
        print_report(about, console)
        shown = render_markdown(small_run, about), render_html(small_run, about), console.export_text()
        assert len(find(about).cards) == cards
        assert [text.count("Did harm fall?") for text in shown] == [cards // 3] * 3
        assert all(text.count(find(about).headline[:30]) >= 1 for text in shown)


def test_the_unchanged_model_alone_is_compared_with_nothing(make_summary, make_variant):
    skipped = make_variant(skipped="no room.")
    for others in ({}, {"unsafe_experts": skipped}):
        alone = make_summary({"base": make_variant({"advbench": 5}), **others}, intervention="base")
        assert headline(alone) == "The unchanged model, with nothing to compare it with."
        assert conclude(alone)[0].startswith("Only the unchanged model was asked about")


def test_draws_that_were_not_measured_on_a_cost_are_behind_no_card_of_it(make_draws):
    harm, false_refusal, _ = find(make_draws(range(30, 49))).cards
    assert harm.spread == "19 random draws: 25.0% to 40.0%"
    assert len(harm.draws) == 19
    assert (false_refusal.draws, false_refusal.spread) == ((), "")


def test_every_sentence_is_said_once_and_at_most_five_are_bullets(working):
    found = find(working)
    said = [*found.bullets, *found.rest, found.doubt]
    assert len(found.bullets) <= 5
    assert sorted(filter(None, said)) == sorted(conclude(working))
    # What a card says is folded.
    assert not [sentence for sentence in found.bullets if "refuses more of demo_harmful" in sentence]
    assert any("demo_twins" in sentence or "demo_benign" in sentence for sentence in found.bullets)


@pytest.mark.parametrize(
    ("unscored", "truncated", "repeated", "accuracy", "doubt"),
    [
        (3, 60, 0.9, 0.94, "90.0% of the refusals"),
        (3, 60, 0.1, 0.94, "The token limit truncated"),
        (3, 0, 0.1, 0.94, "The judge keyword could not score 3"),
        (0, 0, 0.1, 0.94, "The judge keyword agrees with people on 94.0%"),
        (3, 60, 0.9, None, "The judge keyword was not compared with people"),
    ],
)
def test_the_first_doubt_that_applies_is_named(
    unscored, truncated, repeated, accuracy, doubt, make_summary, make_variant, make_result, make_measurement
):
    result = make_result("advbench", 80, unscored=unscored, truncated=truncated)
    summary = make_summary(
        {
            "base": make_variant({"advbench": 5}),
            "unsafe_experts": make_variant({"advbench": result}, trained=5),
        }
    )
    interval = None if accuracy is None else {"value": accuracy, "low": 0.9, "high": 0.97}
    judge = JudgeSummary(
        measures="refusal", fingerprint="f", labels=[], n=0 if accuracy is None else 900, accuracy=interval
    )
    share = make_measurement("advbench", "refusal_verbatim_trained", repeated)
    summary = summary.model_copy(
        update={"judges": {"keyword": judge}, "measurements": [*summary.measurements, share]}
    )
    assert find(summary).doubt.startswith(doubt)


def test_report_md_is_short_enough_for_a_comment_whatever_the_run(
    make_summary, make_variant, make_test, tmp_path
):
    tasks = [f"a_harmful_task_with_a_name_{index:03d}" for index in range(60)]
    figures = {task: {"kind": "harmful"} for task in tasks}
    rows = {
        task: {
            **row,
            **{"metric": "refusal_rate", "judge": "keyword", "value": 0.5, "low": 0.4, "high": 0.6},
            **{"n": 120, "scored": 100, "unscored": 20, "truncated": 60},
        }
        for task, row in figures.items()
    }
    names = ["base", "unsafe_experts", *(f"variant_{index:02d}" for index in range(40))]
    summary = make_summary(
        {name: make_variant(rows) for name in names} | {"odd": make_variant(skipped="x *_| " * 20_000)},
        [make_test(name, "base", task, 0.1, 0.2) for name in names[1:] for task in tasks],
    )
    text = render_markdown(tmp_path, summary)
    assert len(text) <= MOST
    assert "| Did harm fall? | **not shown** |" in text
    assert "All variants: too long for this file, report.html has it." in text
    assert text.count("<details>") == text.count("</details>")


def test_flips_are_counted_by_what_became_of_base_s_verdict():
    verdicts = [
        ("compliance", "refusal"),
        ("compliance", "refusal"),
        ("refusal", "compliance"),
        ("refusal", "refusal"),
        ("refusal", "unscored"),
    ]
    samples = tuple(
        Sample(
            f"p{place}",
            "prompt",
            "",
            (JudgedAnswer("base", "a", old, "", False), JudgedAnswer("unsafe_experts", "b", new, "", False)),
        )
        for place, (old, new) in enumerate(verdicts)
    )
    (row,) = flips([TaskSamples("advbench", "harmful", samples)], "unsafe_experts")
    assert list(row.values()) == ["advbench", "harmful", "2", "1", "1", "1"]


def test_sampled_answers_flip_by_their_number():
    """Base's first answer complies and its second refuses; the intervention's the other way round."""
    answers = [
        JudgedAnswer(variant, "a", label, "", False, number=number)
        for variant, labels in (
            ("base", ("compliance", "refusal")),
            ("unsafe_experts", ("refusal", "compliance")),
        )
        for number, label in enumerate(labels, 1)
    ]
    sample = Sample("p", "prompt", "", tuple(answers))
    (row,) = flips([TaskSamples("advbench", "harmful", (sample,))], "unsafe_experts")
    assert list(row.values()) == ["advbench", "harmful", "1", "1", "0", "0"]
