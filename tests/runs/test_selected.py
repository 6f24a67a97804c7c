"""What a summary says of the chosen experts, from the files of a run."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
import synthetic_runs
from sklearn.feature_extraction.text import TfidfVectorizer

from harness.base.errors import BadInputError
from harness.base.files import read_json, write_json, write_jsonl
from harness.report.chosen import experts
from harness.runs.evidence import Evidence
from harness.runs.measure import measure
from harness.runs.run import Run


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    return synthetic_runs.write_run(tmp_path_factory.mktemp("selected") / "rich", synthetic_runs.rich())


@pytest.fixture
def changed(rich, tmp_path):
    """Return the selection of a copy of the run after a change of its folder."""

    def change(how):
        folder = tmp_path / "run"
        shutil.copytree(rich, folder)
        how(folder)
        with synthetic_runs.words_of_harm():
            return measure(Run(folder))

    return change


def test_chosen_experts_are_described_on_test_prompts(rich):
    selection = Run(rich).summary.selection
    assert selection.held_out.tasks == ["made_harmful", "made_other", "made_benign", "made_twins"]
    assert (selection.held_out.harmful, selection.held_out.benign) == (56, 50)
    # What the routing was drawn with: 2 of 8 shares against 1 of 8, with 2 routings per token; less for twins.
    for expert in selection.experts:
        assert 0 < expert.held_out.low < expert.held_out.value < expert.held_out.high < 0.4
        assert expert.held_out.value != expert.risk_diff
    assert (selection.topic.harmful, selection.topic.paired) == (20, True)
    share = selection.topic.share
    assert share.low < 0.55 < share.high
    assert share.high - share.low < 0.5


def test_without_routing_of_test_prompts_nothing_is_said_there(changed):
    selection = changed(lambda folder: shutil.rmtree(folder / "routing")).selection
    assert (selection.held_out, selection.topic) == (None, None)
    assert all(expert.held_out is None for expert in selection.experts)


def test_a_selection_of_experts_that_were_not_scored_is_one_line(changed):
    def unknown(folder):
        path = folder / "variants" / "unsafe_experts" / "selection.json"
        write_json(path, read_json(path) | {"experts": [[1, -(10**30)]]})

    with pytest.raises(
        BadInputError, match=r"selection\.json: layer 1, expert -10+: experts\.parquet has no"
    ):
        changed(unknown)


def test_a_share_of_topic_is_turned_round_with_the_direction(changed, rich):
    def safe(folder):
        content = read_json(folder / "run.json")
        content["config"]["selection"]["direction"] = "safe"
        write_json(folder / "run.json", content)

    selection = changed(safe).selection
    # These experts are used more, so that no difference in the direction wanted is shown.
    assert selection.direction == "safe"
    assert selection.topic.share is None
    assert selection.topic.against_benign == Run(rich).summary.selection.topic.against_benign > 0


@pytest.mark.parametrize(
    ("method", "columns"),
    [
        ("risk_diff", ["risk difference", "95% interval", "q"]),
        ("topic_adjusted", ["risk difference", "topic_adjusted", "95% interval", "q"]),
        ("per_prompt", ["risk difference", "per_prompt"]),
    ],
)
def test_a_method_has_its_own_interval_and_q_value_or_none(method, columns, changed):
    def choose(folder):
        path = folder / "variants" / "unsafe_experts" / "selection.json"
        write_json(path, read_json(path) | {"method": method})
        table = pd.read_parquet(folder / "experts.parquet")
        own = {"topic_low": 0.01, "topic_high": 0.5, "topic_q_value": 0.125}
        table.assign(**own).to_parquet(folder / "experts.parquet", index=False)

    summary = changed(choose)
    first, *_ = summary.selection.experts
    assert list(experts(summary)[0])[2:-1] == columns
    if method == "topic_adjusted":
        assert (first.score, first.low, first.high, first.q_value) == (pytest.approx(0.3), 0.01, 0.5, 0.125)
    elif method == "per_prompt":
        assert (first.score, first.low, first.high, first.q_value) == (pytest.approx(0.4), None, None, None)
    else:
        assert (first.score, first.q_value) == (pytest.approx(0.4), 0.002)


def test_refusal_is_measured_near_and_far_from_training_prompts(changed, rich):
    asked = {answer.id: answer.prompt for answer in Run(rich).answers("base", "made_harmful")}
    trained = list(asked)[:3]
    texts = [*asked.values(), *(asked[id] for id in trained)]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit_transform(texts).toarray()
    cosines = (vectors[: len(asked)] @ vectors[len(asked) :].T).max(axis=1)
    near = [id for id, cosine in zip(asked, cosines, strict=True) if cosine >= 0.5]
    assert len(trained) < len(near) < len(asked)

    def train(folder):
        rows = [
            {"task": "t", "id": id, "prompt": asked[id], "answer": "No.", "aim": "refuse"} for id in trained
        ]
        # What is to be answered as before says nothing of refusing.
        rows.append(
            {"task": "t", "id": "b", "prompt": asked[list(asked)[9]], "answer": "Yes.", "aim": "retain"}
        )
        write_jsonl(folder / "training" / "examples.jsonl", rows)

    summary = changed(train)
    found = {
        metric: summary.figure("unsafe_experts", "made_harmful", metric, "keyword")
        for metric in ("refusal_near_training", "refusal_far_from_training", "refusal_rate")
    }
    labels = Evidence(rich).labels("unsafe_experts", "made_harmful", "keyword")
    refused = [labels[id] == "refusal" for id in near if labels[id] is not None]
    assert found["refusal_near_training"].value == pytest.approx(sum(refused) / len(refused))
    parts = [found[name] for name in ("refusal_near_training", "refusal_far_from_training")]
    assert sum(part.n for part in parts) == found["refusal_rate"].n
    assert sum(part.value * part.scored for part in parts) == pytest.approx(
        found["refusal_rate"].value * found["refusal_rate"].scored
    )
    # Only trained variants, and only where some prompt is near.
    assert summary.figure("base", "made_harmful", "refusal_near_training", "keyword") is None
    assert (
        Run(rich).summary.figure("unsafe_experts", "made_harmful", "refusal_far_from_training", "keyword")
        is None
    )
