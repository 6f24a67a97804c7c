"""What benchmarks/inference_experts.py measures, with so few repetitions that only gross errors show."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import inference_experts


@pytest.mark.parametrize("pairs", [20, 60])
def test_the_share_of_topic_is_right_whatever_the_number_of_pairs(pairs):
    found = inference_experts.topic_shares(pairs, 0.5, repetitions=200)
    assert found["median"] == pytest.approx(0.5, abs=0.05)
    assert found["coverage"] > 0.88


def test_chosen_experts_are_covered_on_prompts_that_did_not_choose_them():
    found = inference_experts.chosen_intervals(np.arange(40), np.arange(40), 0.0, repetitions=60)
    assert 0.91 < found["coverage"] < 0.98
    assert found["coverage_where_they_were_chosen"] < found["coverage"] - 0.02


def test_near_duplicates_make_no_expert_significant():
    found = inference_experts.permutation_errors(0.9, repetitions=512, permutations=300)
    assert found["groups_permuted"] < 0.07
