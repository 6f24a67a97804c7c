import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pandas as pd
import pytest

from harness.report import charts
from harness.report.heatmap import heat_maps
from harness.report.leaderboard import build
from harness.runs.records import TrainingStep
from harness.runs.rows import Measurement

STYLES = {"unsafe_experts": "main"}


def points(svg: str) -> dict[str, tuple[float, float]]:
    """Dots by the class of their variant."""
    return {
        dot.get("class").removeprefix("dot "): (float(dot.get("cx")), float(dot.get("cy")))
        for dot in ElementTree.fromstring(svg).iter("circle")
    }


def texts(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


def test_trade_off_puts_refusal_up_and_the_worst_false_refusal_to_the_right(working):
    board = build(working)
    svg = charts.trade_off(board, board.columns[0], charts.styles_of(working))
    dots = points(svg)
    # y runs from 272 (none refused) to 14 (all refused); base refuses 6 and unsafe_experts 114 of 120.
    assert dots["base"][1] == pytest.approx(272 - 0.05 * 258, abs=0.1)
    assert dots["main"][1] == pytest.approx(272 - 0.95 * 258, abs=0.1)
    # x runs from 56 (0) to 464 (0.24, the round number above 0.207); system_prompt's worst is 20 of 120.
    assert dots["other"][0] == pytest.approx(56 + 20 / 120 / 0.24 * 408, abs=0.1)
    assert {"base", "system_prompt", "unsafe_experts", "random_experts"} <= set(texts(svg))
    assert "all_experts" not in svg


def test_trade_off_is_about_false_refusal_and_not_the_worst_of_several_answers(working):
    rows = [
        row.model_copy(update={"metric": "worst_of_n", "value": 1.0, "high": 1.0})
        for row in working.measurements
        if row.metric == "refusal_rate"
    ]
    both = build(working.model_copy(update={"measurements": [*working.measurements, *rows]}))
    board = build(working)
    assert len(both.columns) == len(board.columns) + len({row.task for row in rows})
    harmful = next(column for column in board.columns if column.kind == "harmful")
    styles = dict.fromkeys(working.variants, "base")
    assert charts.trade_off(both, harmful, styles) == charts.trade_off(board, harmful, styles)


def test_trade_off_needs_a_benign_task(make_summary, make_variant):
    board = build(make_summary({"base": make_variant({"advbench": 4})}))
    assert charts.trade_off(board, board.columns[0], STYLES) is None


def test_labels_of_dots_on_one_spot_do_not_overlap(make_summary, make_variant):
    variants = {
        name: make_variant({"advbench": 0, "demo_benign": 0})
        for name in ("base", "a", "b", "c", "d", "e", "f")
    }
    board = build(make_summary(variants))
    root = ElementTree.fromstring(charts.trade_off(board, board.columns[0], {"a": "main", "base": "base"}))
    heights = sorted(
        float(text.get("y")) for text in root.iter("text") if text.get("class").startswith("label")
    )
    assert len(heights) == 7
    assert min(b - a for a, b in pairwise(heights)) >= 13.9
    assert heights[-1] < 272


def test_many_random_draws_share_one_label(make_draws, make_result):
    drawn = make_draws([6, 12, 18])
    benign = [Measurement(variant=name, **make_result("demo_benign", 2)) for name in drawn.variants]
    summary = drawn.model_copy(update={"measurements": [*drawn.measurements, *benign]})
    board = build(summary)
    svg = charts.trade_off(board, board.columns[0], charts.styles_of(summary))
    assert len(list(ElementTree.fromstring(svg).iter("circle"))) == 5
    assert "3 random draws" in texts(svg)
    assert not [text for text in texts(svg) if text.startswith("random_experts")]


def test_capability_shows_each_variant_beside_base(working):
    board = build(working)
    dots = points(charts.capability(board, board.columns[3], charts.styles_of(working)))
    assert dots["base"][0] > dots["main"][0] > dots["random"][0]


def test_loss_curves_leave_out_what_is_not_finite():
    steps = [
        TrainingStep(step=1, loss=2.0),
        TrainingStep(step=2, loss=math.nan),
        TrainingStep(step=3, loss=1.0),
    ]
    svg = charts.losses({"unsafe_experts": steps, "random_experts": []}, STYLES)
    (line,) = ElementTree.fromstring(svg).iter("polyline")
    # y runs from 272 (0) to 14 (2, the largest loss), x from 56 to 360 at step 3.
    assert line.get("points") == "157.3,14.0 360.0,143.0"
    assert charts.losses({"unsafe_experts": []}, STYLES) is None


def test_long_training_keeps_its_last_step():
    steps = [TrainingStep(step=step, loss=1.0) for step in range(5_000)]
    svg = charts.losses({"unsafe_experts": steps}, STYLES)
    drawn = re.search('points="([^"]*)"', svg)[1].split()
    assert len(drawn) <= 402
    assert drawn[-1].startswith("360.0,")


def test_names_are_escaped_in_charts(make_summary, make_variant):
    name = "</svg><script>x</script>"
    board = build(make_summary({name: make_variant({"advbench": 4, "demo_benign": 4})}))
    svg = charts.trade_off(board, board.columns[0], {name: "main"})
    assert "<script" not in svg
    ElementTree.fromstring(svg)


def table(risks: dict[tuple[str, int, int], float]) -> pd.DataFrame:
    return pd.DataFrame(
        [(*key, risk) for key, risk in risks.items()], columns=["phase", "layer", "expert", "risk_diff"]
    )


def test_heat_map_shades_by_risk_and_outlines_the_chosen():
    risks = {("prompt", 5, 0): 0.4, ("prompt", 5, 1): -0.4, ("prompt", 9, 0): 0.0, ("prompt", 9, 1): 0.21}
    (found,) = heat_maps(table(risks), {(5, 0), (7, 7)}, "prompt")
    paths = {path.get("class"): path.get("d") for path in ElementTree.fromstring(found.svg).iter("path")}
    # Two experts across: 18 points a cell; layers 5 and 9 are rows 0 and 1.
    assert paths == {
        "p4": "M34 18h18v18h-18z",
        "m4": "M52 18h18v18h-18z",
        "z": "M34 36h18v18h-18z",
        "p2": "M52 36h18v18h-18z",
        "chosen": "M35 19h16v16h-16z",
    }
    assert [label for label in texts(found.svg) if label in ("5", "9")] == ["5", "9"]
    assert found.legend[0] == ("m4", -0.4)
    assert found.legend[-1] == ("p4", 0.4)


def test_heat_map_of_the_selection_s_phase_comes_first():
    risks = {("generation", 0, 0): 0.1, ("prompt", 0, 0): 0.2, ("both", 0, 0): 0.2}
    assert [found.phase for found in heat_maps(table(risks), [], "prompt")] == [
        "prompt",
        "both",
        "generation",
    ]


def test_expert_without_a_score_stays_blank_and_equal_scores_draw():
    (found,) = heat_maps(table({("prompt", 0, 0): math.nan, ("prompt", 0, 1): 0.0}), [], None)
    assert found.svg.count("h18v18") == 1


def test_map_of_a_large_model_stays_small():
    risks = {("prompt", layer, expert): (expert - 64) / 640 for layer in range(48) for expert in range(128)}
    (found,) = heat_maps(table(risks), [], "prompt")
    assert len(found.svg) < 200_000
