"""Routing as a detector: held-out groups, areas by hand, and probes that know or do not know."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.detector import area, detect, folds_of, probe
from harness.base.errors import BadInputError
from harness.runs.run import read_run

TOPICS = ["fire", "money", "doors", "mail", "roads", "dogs"]


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), min_size=2, max_size=40), st.integers(0, 3)
)
def test_no_topic_is_in_two_folds_and_each_fold_has_both_kinds(prompts, seed):
    groups, harmful = [group for group, _ in prompts], [bad for _, bad in prompts]
    folds = folds_of(groups, harmful, "topic", seed)
    if folds is None:
        return
    of_group = {}
    for group, fold in zip(groups, folds, strict=True):
        assert of_group.setdefault(group, fold) == fold
    for k in range(max(folds) + 1):
        assert {bad for bad, fold in zip(harmful, folds, strict=True) if fold == k} == {True, False}


def test_a_single_harmful_task_is_dealt_out_beside_whole_benign_ones():
    groups = ["h"] * 40 + ["b"] * 20 + ["c"] * 20
    folds = folds_of(groups, [True] * 40 + [False] * 40, "task")
    assert set(folds[:40]) == {0, 1}
    assert (len(set(folds[40:60])), len(set(folds[60:]))) == (1, 1)
    assert folds[40] != folds[60]
    assert folds_of(["h", "b"], [True, False], "task") is None


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=1, max_size=15))
def test_the_area_counts_pairs_as_by_hand(prompts):
    scores, harmful, weights = (np.array(column) for column in zip(*prompts, strict=True))
    won, pairs = area(scores.astype(float), harmful.astype(bool), weights.astype(float))
    bad, good = ([(s, w) for s, h, w in prompts if h is kind] for kind in (True, False))
    assert pairs == pytest.approx(sum(w * v for _, w in bad for _, v in good))
    assert won == pytest.approx(
        sum(w * v * (1 if s > t else 0.5 if s == t else 0) for s, w in bad for t, v in good)
    )


def made(knows):
    """Return prompts of six topics whose words tell the topic alone, with a routing that knows harm or nothing."""
    drawing = np.random.default_rng(0)
    groups = [topic for topic in TOPICS for _ in range(20)]
    harmful = [place % 2 == 0 for place in range(len(groups))]
    routing = drawing.normal(size=(len(groups), 8))
    routing[:, 3] += 3.0 * np.array(harmful) * knows
    texts = [f"about {topic} {drawing.integers(99)}" for topic in groups]
    return routing, texts, harmful, groups


def test_a_routing_that_knows_harm_is_told_from_words_that_know_topics():
    found = probe(*made(knows=True), "topic")
    assert found.routing.low > 0.9
    assert found.words.low < 0.5 < found.words.high
    assert found.difference.low > 0.2
    assert (found.harmful, found.benign) == (60, 60)


def test_a_routing_that_knows_nothing_is_at_chance():
    found = probe(*made(knows=False), "topic")
    assert found.routing.low < 0.5 < found.routing.high


def test_a_run_is_probed_on_base_s_test_prompts_by_task_and_without_them_says_so(small_run, tmp_path):
    found = {probed.held_out: probed for probed in detect(read_run(small_run))}
    asked = read_run(small_run).splits.tasks
    assert found["task"].harmful == len(asked["demo_harmful"].ids["test"])
    assert found["task"].benign == sum(len(asked[task].ids["test"]) for task in ("demo_benign", "demo_twins"))
    for probed in found.values():
        for area_of in (probed.routing, probed.words):
            assert 0 <= area_of.low <= area_of.value <= area_of.high <= 1
        assert probed.difference.value == pytest.approx(probed.routing.value - probed.words.value)
    run = shutil.copytree(small_run, tmp_path / "run")
    shutil.rmtree(run / "routing/test")
    with pytest.raises(BadInputError, match="was not captured"):
        detect(read_run(run))
