import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.markdown import code, escape, grid, render_markdown
from harness.runs.summary import write_summary


def section(text: str, heading: str) -> str:
    return text.split(f"<summary>{heading}</summary>\n", 1)[1].split("\n</details>", 1)[0]


def test_report_has_every_section_of_a_pull_request(whole_run, working):
    text = render_markdown(whole_run, working)
    assert text.startswith(
        "# `unsafe_experts` on `demo`\n\n**unsafe_experts refuses more harmful prompts than base; false refusal and "
    )
    assert (
        "| Did harm fall? | **yes** | refusal, demo_harmful | 5.0% | 95.0% | +90.0 points (+85.0 to +95.0) |"
        in text
    )
    assert re.findall("<summary>(.*)</summary>", text) == [
        "4 more findings",
        "All variants",
        "Comparisons",
        "Selected experts",
        "What was changed",
        "To reproduce",
        "Time",
    ]
    assert "| **★ `unsafe_experts`** | **95.0 ▲** (91.0–99.0) | 0.8 (0.0–4.8) |" in section(
        text, "All variants"
    )
    assert "| `all_experts` | skipped | skipped | skipped | skipped |" in section(text, "All variants")
    assert "- unsafe_experts refuses more of demo_harmful than base" in section(text, "4 more findings")
    gain, cost = "`demo_harmful` (refusal_rate, keyword)", "`piqa` (acc)"
    assert f"| {gain} | **+90.0** (+85.0 to +95.0) | better |  | < 0.001 (< 0.001) |" in text
    assert f"| {cost} | -0.5 (-5.5 to +4.5) | no worse | 3.5 of 5 | 0.90 (0.90) |" in text
    assert "| 2 | 7 | +0.3100 | +0.2500 to +0.3700 | 0.0004 |" in text
    assert "| 1 | 30 | +0.1200 |  |  |" in text
    # 196,608 of 3,600,000 parameters; the random draw shares one of the two chosen experts.
    assert "| `unsafe_experts` | 2 | 2 | 196,608 | 5.5% | all other weights unchanged |" in text
    assert "| `random_experts` | 2 | 1 | 196,608 | 5.5% | all other weights unchanged |" in text
    assert "```sh\nharness run --intervention unsafe_experts --set 'a.b=x y'\n```" in text
    assert "- seeds: `run=0`" in text
    assert "- torch: `2.13.0`" in text
    assert "16.5 s in all." in section(text, "Time")


def test_summary_alone_is_enough_and_what_is_missing_is_said(bare_run, working):
    text = render_markdown(bare_run, working)
    assert "The command is not recorded in this run folder." in text
    assert "| `unsafe_experts` |  |  | 196,608 | 5.5% |" in text


def test_empty_run_has_a_report(make_summary, make_variant, tmp_path):
    text = render_markdown(tmp_path, make_summary({"base": make_variant()}))
    assert "No comparison was made." in text
    assert "The run chose no experts." in text
    assert "No variant changed the model." in text


def test_failed_proof_is_in_the_table(make_summary, make_variant, tmp_path):
    summary = make_summary({"base": make_variant(), "unsafe_experts": make_variant(trained=5, frozen=False)})
    assert "| `unsafe_experts` |  |  | 5 | 0.0% | FAILED |" in render_markdown(tmp_path, summary)


def test_long_selection_is_cut_and_says_so(working, tmp_path):
    first = working.selection.experts[0]
    experts = [first.model_copy(update={"expert": index}) for index in range(30)]
    selection = working.selection.model_copy(update={"experts": experts})
    text = render_markdown(tmp_path, working.model_copy(update={"selection": selection}))
    assert "30 chosen by `top_k` on phase `prompt`; the first 20 are shown." in text
    assert section(text, "Selected experts").count("| 2 | ") == 20


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unsafe_experts", "unsafe_experts"),
        ("_a_", "\\_a\\_"),
        ("<img src=x>", "\\<img src=x>"),
        ("p < 0.05", "p < 0.05"),
        ("a | b", "a \\| b"),
        ("[x](y) `z` *w*", "\\[x\\](y) \\`z\\` \\*w\\*"),
        ("two\nlines", "two lines"),
    ],
)
def test_text_is_escaped(text, shown):
    assert escape(text) == shown


@given(st.text(), st.text())
def test_a_row_of_a_table_stays_one_row_with_its_cells(first, second):
    lines = grid(["a", "b"], [[code(first), second]]).split("\n")
    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == 3


def test_code_span_may_hold_backticks():
    assert code("a`b``c") == "``` a`b``c ```"


def test_command_cannot_close_its_block(make_summary, make_variant, tmp_path):
    summary = make_summary({"base": make_variant()})
    write_summary(tmp_path, summary)
    (tmp_path / "run.json").write_text('{"command": "x ``` y"}')
    assert "````sh\nx ``` y\n````" in render_markdown(tmp_path, summary)
