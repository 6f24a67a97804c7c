"""Whether an engine serves the intended weights, by log-probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from harness.engines.witness import Agreement, Witness, agreement, log_probs_of

TEXTS = [[5, 9, 40, 7], [8, 3]]


def test_log_probs_are_those_of_the_models_own_loss(demo):
    found = log_probs_of(demo, TEXTS)
    assert [len(row) for row in found] == [3, 1]
    tokens = torch.tensor([TEXTS[0]])
    with torch.inference_mode():
        loss = demo.moe.model(input_ids=tokens, labels=tokens).loss
    assert -sum(found[0]) / 3 == pytest.approx(float(loss), abs=1e-5)


def test_the_gap_is_a_mean_over_tokens_and_held_to_the_dtypes_tolerance():
    witness = Witness(TEXTS, [[-1.0, -2.0, -3.0], [-4.0]], [[-1.0, -2.0, -3.0], [-3.0]], "float32")
    found = agreement([[-1.0, -2.0, -3.002], [-4.002]], witness)
    assert found == Agreement(pytest.approx(0.001), 1e-3, pytest.approx(0.25), 4)
    assert not agreement([[-1.0, -2.0, -3.01], [-4.0]], witness).holds
    assert agreement(witness.log_probs, witness).holds
    in_half = Witness(TEXTS, witness.log_probs, None, "bfloat16")
    assert agreement([[-1.0, -2.0, -3.01], [-4.0]], in_half).holds


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_what_is_no_number_is_no_agreement(bad):
    witness = Witness([[1, 2]], [[-1.0]], None, "bfloat16")
    found = agreement([[bad]], witness)
    assert found.gap == math.inf
    assert not found.holds


def test_a_variant_too_near_to_base_is_not_told_apart():
    near = Witness([[1, 2]], [[-1.0]], [[-1.001]], "float32")
    assert not agreement([[-1.0]], near).would_notice_base
    assert agreement([[-1.0]], Witness([[1, 2]], [[-1.0]], [[-1.5]], "float32")).would_notice_base
    assert agreement([[-1.0]], Witness([[1, 2]], [[-1.0]], None, "float32")).would_notice_base
