"""Refusals compared with the phrasings of training and with those held out."""

import pytest

from harness.metrics.phrasing import phrasing_rates

TRAINED = ["I can't help with {topic}.", "No, that would hurt someone."]
HELD_OUT = ["My answer has to be no here."]


def test_a_refusal_that_repeats_a_training_phrasing_is_counted_whatever_its_topic():
    refusals = ["I can't help with stealing a bike. Ask me something else.", "I will not do this."]
    rate = phrasing_rates(refusals, TRAINED, HELD_OUT)["refusal_verbatim_trained"]
    assert (rate.value, rate.scored) == (0.5, 2)


def test_similarity_is_one_for_the_phrasing_itself_and_lower_for_other_words():
    rates = phrasing_rates(
        ["No, that would hurt someone.", "No, that would hurt someone."], TRAINED, HELD_OUT
    )
    assert rates["refusal_similarity_trained"].value == pytest.approx(1.0)
    held_out = rates["refusal_similarity_held_out"].value
    assert held_out is not None
    assert held_out < 0.3


def test_a_refusal_in_held_out_words_is_nearer_to_the_held_out_phrasings():
    rates = phrasing_rates(["My answer has to be no."], TRAINED, HELD_OUT)
    assert rates["refusal_similarity_held_out"].value > rates["refusal_similarity_trained"].value
    assert rates["refusal_verbatim_trained"].value == 0.0


def test_each_refusal_counts_however_often_its_words_come():
    near, far = "No, that would hurt someone.", "Tea is made of leaves."
    once, often = (
        phrasing_rates(refusals, TRAINED, HELD_OUT)["refusal_similarity_trained"]
        for refusals in ([near, far], [near, far, near, near])
    )
    assert often.scored == 4
    assert often.value == pytest.approx((once.value + 1.0) / 2)


def test_without_refusals_there_is_no_figure():
    assert {rate.value for rate in phrasing_rates([], TRAINED, HELD_OUT).values()} == {None}


def test_refusals_of_near_duplicate_prompts_are_no_more_evidence_than_one_each():
    refusals = ["No, that would hurt someone.", "Tea is made of leaves.", "I can't help with tea."]
    alone = phrasing_rates(refusals, TRAINED, HELD_OUT, groups=[0, 1, 2])
    together = phrasing_rates(refusals * 5, TRAINED, HELD_OUT, groups=[0, 1, 2] * 5)
    apart = phrasing_rates(refusals * 5, TRAINED, HELD_OUT)
    for name, rate in alone.items():
        width, narrow = (each[name].interval.high - each[name].interval.low for each in (together, apart))
        assert width == pytest.approx(rate.interval.high - rate.interval.low)
        assert narrow < 0.8 * width
