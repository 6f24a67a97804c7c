"""lm-eval's direction, and what its configuration lets be tested, hold in summary, conclusion, star and gates."""

import json
import shutil
from dataclasses import replace

import pytest
import synthetic_runs
import yaml

from harness.base.errors import BadInputError
from harness.capability.results import CapabilityResult
from harness.cli.main import main
from harness.gate.samples import GatedRun
from harness.gate.schema import Gate
from harness.report import leaderboard
from harness.report.conclusion import conclude
from harness.report.finding import headline
from harness.runs.capability import Capability
from harness.runs.earlier import with_direction
from harness.runs.evidence import Evidence
from harness.runs.layout import Layout
from harness.runs.measure import measure
from harness.runs.run import read_run

N = 60


def result(task, metric, higher_is_better, scores, value=None):
    """A capability result whose value is the mean of its scores unless one is given."""
    mean = sum(scores) / len(scores)
    return CapabilityResult(
        task=task,
        metric=metric,
        value=mean if value is None else value,
        stderr=None,
        low=None,
        high=None,
        interval=None,
        n=len(scores),
        unparsed=None,
        items={str(place): score for place, score in enumerate(scores)},
        others={},
        higher_is_better=higher_is_better,
        is_mean=value is None,
    )


def ones(count):
    return [float(place < count) for place in range(N)]


# By task: the metric, whether higher is better, and the scores and value of base and of the intervention.
FIGURES = {
    "errors": ("error", False, (ones(40), None), (ones(10), None)),
    "mistakes": ("error", False, (ones(10), None), (ones(40), None)),
    "undirected": ("length", None, (ones(40), None), (ones(10), None)),
    "lambada": ("perplexity", False, ([-50.0] * N, 1.9e22), ([-48.0] * N, 1.8e21)),
    "by_task": ("acc", True, (ones(40), 0.9), (ones(10), 0.4)),
}


def capability(of_base):
    for task, (metric, direction, base, own) in FIGURES.items():
        yield task, result(task, metric, direction, *(base if of_base else own))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The small synthetic run with these capability tasks, as `harness measure` leaves it."""
    place = tmp_path_factory.mktemp("capability")
    made = synthetic_runs.small()
    variants = {
        name: replace(variant, capability=dict(capability(name == "base")))
        for name, variant in made.variants.items()
    }
    return synthetic_runs.write_run(place / "run", replace(made, variants=variants))


def check(run, tmp_path, capsys, gate):
    file = tmp_path / "gates.yaml"
    file.write_text(yaml.safe_dump({"gates": [{"name": "it", **gate}]}))
    code = main(["check", str(run), "--gates", str(file), "--json"])
    said = capsys.readouterr()
    return said.err if code == 2 else json.loads(said.out)["gates"][0]


def test_only_means_of_items_with_a_direction_are_tested(run):
    summary = read_run(run).summary
    tested = {row.task for row in summary.comparisons if row.judge is None}
    assert tested == {"errors", "mistakes"}
    rows = {row.task: (row.higher_is_better, row.is_mean) for row in summary.of("base") if row.judge is None}
    assert {task: rows[task] for task in FIGURES} == {
        "errors": (False, True),
        "mistakes": (False, True),
        "undirected": (None, True),
        "lambada": (False, False),
        "by_task": (True, False),
    }


def test_the_conclusion_says_which_way_is_better(run):
    said = [line for line in conclude(read_run(run).summary) if line.startswith("Capability")]
    assert [line.split(" (-")[0].split(" (+")[0].split(" (n")[0] for line in said[:2]] == [
        "Capability (error) on errors is no worse than base's within 2 points: 16.7% against 66.7%; a rise is ruled "
        "out",
        "Capability (error) on mistakes rises (worse): 66.7% against 16.7%",
    ]
    assert said[2:] == [
        "Capability (length) on undirected falls from 66.7% to 16.7%; it is not tested, since its metric has no "
        "direction that is better.",
        "Capability (perplexity) on lambada falls from 1.9e22 to 1.8e21 (better); it is not tested, since it is not "
        "the mean of its items' scores.",
        "Capability (acc) on by_task falls from 90.0% to 40.0% (worse); it is not tested, since it is not the mean of "
        "its items' scores.",
    ]


def test_leaderboard_and_headline_count_a_fall_of_errors_as_a_gain(run):
    summary = read_run(run).summary
    board = leaderboard.build(summary)
    own = next(row for row in board.rows if row.variant == summary.intervention)
    shown = {
        column.asked: (column.unit, cell.mark, cell.is_better)
        for column, cell in zip(board.columns, own.cells, strict=True)
        if column.kind == "capability"
    }
    assert shown == {
        "errors": ("% ↓", "▼", True),
        "mistakes": ("% ↓", "▲", False),
        "undirected": ("%", "", None),
        "lambada": ("↓", "", None),
        "by_task": ("% ↑", "", None),
    }
    assert headline(summary).endswith(
        "; worse: capability on mistakes; not decided: false refusal on demo_benign."
    )


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        ({"metric": "error", "task": "errors", "at_most": 0.3}, "PASS"),
        ({"metric": "error", "task": "mistakes", "against": "base", "at_most_above": 0.1}, "FAIL"),
        ({"metric": "perplexity", "task": "lambada", "at_most": 2e21}, "PASS"),
        # Each task counts once, so the 10 of 60 right items are not its figure.
        ({"metric": "acc", "task": "by_task", "at_least": 0.3}, "PASS"),
    ],
)
def test_figures_are_gated_as_lm_eval_reports_them(run, tmp_path, capsys, gate, verdict):
    assert check(run, tmp_path, capsys, gate)["verdict"] == verdict


def test_a_gate_shows_large_numbers_so_that_they_can_be_read(run, tmp_path, capsys):
    decided = check(run, tmp_path, capsys, {"metric": "perplexity", "task": "lambada", "at_most": 2e21})
    assert (decided["required"], decided["seen"]) == (
        "perplexity on lambada <= 2e21",
        "1.8e21 (n = 60), which has no interval",
    )


def test_a_share_is_not_held_against_a_bound_in_percent(run, tmp_path, capsys):
    error = check(run, tmp_path, capsys, {"metric": "error", "task": "errors", "at_most": 50})
    assert "error is a share: at_most is a fraction of 1, found 50" in error


def test_samples_are_called_right_and_wrong_by_the_direction(run):
    gated = GatedRun(run)
    gate = Gate(name="it", metric="error", task="errors", at_most=0.3)
    labels = gated.samples(gated.figure(gate, gated.summary.intervention)).labels
    assert (labels["0"], labels[str(N - 1)]) == ("wrong", "right")


def test_figures_of_earlier_versions_keep_the_direction_that_they_had(run, tmp_path):
    old = shutil.copytree(run, tmp_path / "old")
    for variant in read_run(old).variants:
        path = Layout(old).variant(variant).capability
        content = json.loads(path.read_text())
        for figure in content.values():
            del figure["higher_is_better"], figure["is_mean"]
        path.write_text(json.dumps(content))
    results = read_run(old).capability("base")
    found = {task: (each.higher_is_better, each.is_mean) for task, each in results.items()}
    assert found == {
        "errors": (True, True),
        "mistakes": (True, True),
        "undirected": (True, True),
        "lambada": (False, False),
        "by_task": (True, False),
    }


def test_rows_of_earlier_summaries_are_completed_and_others_left_as_they_are():
    row = {"kind": "capability", "metric": "word_perplexity", "value": 12.0, "high": 14.0}
    assert with_direction(row) == row | {"higher_is_better": False, "is_mean": False, "unit": "number"}
    row = {"kind": "capability", "metric": "acc", "value": 0.5, "high": None}
    assert with_direction(row) == row | {"higher_is_better": True, "is_mean": True, "unit": "share"}
    for whole in ({"kind": "harmful"}, {**row, "higher_is_better": None}, "not a row"):
        assert with_direction(whole) == whole


def test_variants_that_were_asked_different_items_are_not_compared(run, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    path = other / "variants" / "unsafe_experts" / "capability.json"
    figures = json.loads(path.read_text())
    del figures["mistakes"]["items"]["7"]
    path.write_text(json.dumps(figures))
    evidence, metric = Evidence(other), Capability("")
    mine, base = (
        next(row for row in metric.measure(evidence, name) if row.task == "mistakes")
        for name in ("unsafe_experts", "base")
    )
    said = "mistakes: 'unsafe_experts' and 'base' have different items: 1 are of one only, such as '7'"
    with pytest.raises(BadInputError, match=said):
        metric.compare(evidence, mine, base)


def test_a_drift_that_no_measurement_can_hold_is_one_line(run, tmp_path):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    path = other / "variants" / "unsafe_experts" / "drift.json"
    path.write_text(
        '{"perplexity": 1.25, "kl": 0.03, "low": 0.01, "high": 0.06, "answers": 40, "tokens": -1}'
    )
    with pytest.raises(
        BadInputError, match=r"variant 'unsafe_experts' give no figure of kl: expected at least 0"
    ):
        measure(Evidence(other))
