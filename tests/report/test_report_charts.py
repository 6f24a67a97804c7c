import math
import re
from itertools import combinations
from xml.etree import ElementTree

import pandas as pd
import pytest

from harness.report.charts import curves, rows
from harness.report.charts.drawing import Mark, names_beside, round_ticks, styles_of
from harness.report.charts.heatmap import heat_maps
from harness.report.charts.trade_off import points_of, trade_off
from harness.report.finding import find
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


def drawn(board, styles, column=0):
    return trade_off(points_of(board, board.columns[column], None, styles), board.columns[column], None)


def boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Where the names of a picture are, each character as wide as 6.2 of its units."""
    found = []
    for each in ElementTree.fromstring(svg).iter("text"):
        if each.get("class").startswith("label"):
            x, y, width = float(each.get("x")), float(each.get("y")), 6.2 * len(each.text)
            left = {"start": x, "middle": x - width / 2, "end": x - width}[each.get("text-anchor")]
            found.append((left, y - 10, left + width, y + 2))
    return found


def meet(one, other) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_trade_off_puts_refusal_up_and_the_worst_false_refusal_to_the_right(working):
    chart = drawn(build(working), styles_of(working))
    dots = points(chart.svg)
    # y runs from 248 (none refused) to 12 (all refused); base refuses 6 and unsafe_experts 114 of 120.
    assert dots["base"][1] == pytest.approx(248 - 0.05 * 236, abs=0.1)
    assert dots["main"][1] == pytest.approx(248 - 0.95 * 236, abs=0.1)
    # x runs from 54 (0) to 320 (0.25, the round number above 0.207); system_prompt's worst is 20 of 120.
    assert dots["other"][0] == pytest.approx(54 + 20 / 120 / 0.25 * 266, abs=0.1)
    assert {"base", "system_prompt", "unsafe_experts", "random_experts"} <= set(texts(chart.svg))
    assert "all_experts" not in chart.svg
    assert [key.style for key in chart.legend] == ["main", "base", "random", "other"]


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
    assert points_of(both, harmful, None, styles) == points_of(board, harmful, None, styles)


def test_trade_off_needs_a_benign_task(make_summary, make_variant):
    board = build(make_summary({"base": make_variant({"advbench": 4})}))
    assert drawn(board, STYLES) is None


def test_a_variant_of_more_capability_is_a_larger_point_and_the_legend_says_so(working):
    board, styles = build(working), styles_of(working)
    chart = trade_off(
        points_of(board, board.columns[0], board.columns[3], styles), board.columns[0], board.columns[3]
    )
    sizes = {
        each.get("class").removeprefix("dot "): float(each.get("r"))
        for each in ElementTree.fromstring(chart.svg).iter("circle")
    }
    assert sizes["base"] > sizes["main"] > sizes["other"] > sizes["random"]
    assert chart.legend[-1].text == "larger: more capability (acc, piqa: 60.0 to 61.0)"


@pytest.mark.parametrize("n", [7, 12])
def test_names_meet_neither_one_another_nor_a_mark(make_summary, make_variant, n):
    variants = {
        f"variant_{index}": make_variant({"advbench": index % 3, "demo_benign": 0}) for index in range(n)
    }
    svg = drawn(
        build(make_summary({"base": make_variant({"advbench": 0, "demo_benign": 0}), **variants})), {}
    ).svg
    names = boxes(svg)
    assert len(names) == n + 1
    assert not [pair for pair in combinations(names, 2) if meet(*pair)]
    marks = [
        (float(dot.get("cx")), float(dot.get("cy"))) for dot in ElementTree.fromstring(svg).iter("circle")
    ]
    assert not [
        (name, x, y) for name in names for x, y in marks if name[0] < x < name[2] and name[1] < y < name[3]
    ]


def test_a_name_keeps_clear_of_another_variants_interval():
    mark = Mark(100, 100, "steer", "other")
    (nearest,) = boxes(f"<svg>{names_beside([mark])}</svg>")
    across = (60, nearest[1] + 6, 300, nearest[1] + 6)
    assert meet(nearest, across)
    (found,) = boxes(f"<svg>{names_beside([mark], lines=[across])}</svg>")
    assert not meet(found, across)


def test_many_random_draws_share_one_label_and_are_small(make_draws, make_result):
    made = make_draws([6, 12, 18])
    benign = [Measurement(variant=name, **make_result("demo_benign", 2)) for name in made.variants]
    summary = made.model_copy(update={"measurements": [*made.measurements, *benign]})
    svg = drawn(build(summary), styles_of(summary)).svg
    sizes = [float(each.get("r")) for each in ElementTree.fromstring(svg).iter("circle")]
    assert sizes == [2.5, 2.5, 2.5, 5, 5]
    assert "3 random draws" in texts(svg)
    assert not [text for text in texts(svg) if text.startswith("random_experts")]


def test_capability_shows_each_variant_beside_base(working):
    board = build(working)
    dots = points(rows.capability(board, board.columns[3], styles_of(working)).svg)
    assert dots["base"][0] > dots["main"][0] > dots["random"][0]


def test_a_card_draws_its_margin_as_a_band_from_base(working):
    card = find(working).cards[1]
    root = ElementTree.fromstring(rows.strip(card))
    (band,) = root.iter("rect")
    dots = points(rows.strip(card))
    # The band begins at base and is 5 points wide: the intervention, 1 of 120 above base, is a sixth of it away.
    start, width = float(band.get("x")), float(band.get("width"))
    assert dots["base hollow"][0] == pytest.approx(start, abs=0.1)
    assert dots["main"][0] == pytest.approx(start + width / 6, abs=0.1)
    assert "random" in dots


def test_a_card_without_figures_draws_nothing(make_summary, make_variant):
    assert [rows.strip(card) for card in find(make_summary({"base": make_variant({"advbench": 4})})).cards][
        1:
    ] == [
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.93, 1.002, [0.94, 0.96, 0.98, 1.0]),
        (0, 7300, [0, 2000, 4000, 6000]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert round_ticks(low, high) == pytest.approx(ticks)


def test_loss_curves_leave_out_what_is_not_finite():
    steps = [
        TrainingStep(step=1, loss=2.0),
        TrainingStep(step=2, loss=math.nan),
        TrainingStep(step=3, loss=1.0),
    ]
    svg = curves.losses({"unsafe_experts": steps, "random_experts": []}, STYLES).svg
    (line,) = ElementTree.fromstring(svg).iter("polyline")
    # y runs from 256 (0) to 12 (2, the largest loss), x from 46 to 224 at step 3.
    assert line.get("points") == "105.3,12.0 224.0,134.0"
    assert curves.losses({"unsafe_experts": []}, STYLES) is None


def test_long_training_keeps_its_last_step():
    steps = [TrainingStep(step=step, loss=1.0) for step in range(5_000)]
    svg = curves.losses({"unsafe_experts": steps}, STYLES).svg
    points_of_line = re.search('points="([^"]*)"', svg)[1].split()
    assert len(points_of_line) <= 402
    assert points_of_line[-1].startswith("224.0,")


def test_names_are_escaped_in_charts(make_summary, make_variant):
    name = "</svg><script>x</script>"
    board = build(make_summary({name: make_variant({"advbench": 4, "demo_benign": 4})}))
    svg = drawn(board, {name: "main"}).svg
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
