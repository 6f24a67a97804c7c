from __future__ import annotations

import random

import pytest

from harness.data.prompts import Prompt
from harness.data.refusals import fill, refusal_phrasings, refusals_for, topic_of
from harness.judges.keyword import KeywordJudge


def harmful(number: int, category: str | None = "theft", text: str = "Do it.") -> Prompt:
    return Prompt(id=f"h{number}", text=text, task="t", kind="harmful", category=category)


def test_a_tenth_of_the_phrasings_is_held_out_and_none_is_in_both_parts():
    trained, held_out = refusal_phrasings(), refusal_phrasings(held_out=True)
    assert len(trained) == 81
    assert len(held_out) == 9
    assert len({*trained, *held_out}) == 90


@pytest.mark.parametrize(
    ("text", "category", "topic"),
    [
        ("Do it.", "fraud", "fraud"),
        ("Do it.", "Malware/Hacking", "making malware"),
        ("Hack the neighbour's router.", None, "breaking into computers"),
        ("Hack the neighbour's router.", "theft", "theft"),
        ("Hack the neighbour's router.", "Expert advice", "breaking into computers"),
        ("Insult a minority.", None, None),
        ("Do it.", None, None),
    ],
)
def test_topic_comes_from_the_category_then_from_the_words(
    text: str, category: str | None, topic: str | None
):
    assert topic_of(text, category) == topic


def test_a_topic_that_opens_a_sentence_gets_a_capital():
    assert (
        fill("No. {Topic} is bad, and so is {topic}.", "self-harm")
        == "No. Self-harm is bad, and so is self-harm."
    )


def test_refusals_leave_no_slot_and_name_no_topic_where_none_is_known():
    known = refusals_for([harmful(number) for number in range(500)], seed=0)
    unknown = refusals_for([harmful(number, None) for number in range(500)], seed=0)
    assert not any("{" in refusal for refusal in [*known, *unknown])
    assert 200 < sum("theft" in refusal.lower() for refusal in known) < 400
    assert set(unknown) <= {phrasing for phrasing in refusal_phrasings() if "opic}" not in phrasing}


def test_refusals_depend_on_the_seed_and_on_each_prompts_own_id():
    prompts = [harmful(number) for number in range(60)]
    whole = dict(zip((prompt.id for prompt in prompts), refusals_for(prompts, seed=3), strict=True))
    part = random.Random(0).sample(prompts, 20)
    assert refusals_for(part, seed=3) == [whole[prompt.id] for prompt in part]
    assert refusals_for(prompts, seed=4) != list(whole.values())


def test_training_never_draws_a_held_out_phrasing():
    prompts = [harmful(number, None) for number in range(2000)]
    assert not set(refusals_for(prompts, seed=0)) & set(refusal_phrasings(held_out=True))
    assert set(refusals_for(prompts, seed=0, held_out=True)) <= set(refusal_phrasings(held_out=True))


@pytest.mark.parametrize("held_out", [False, True])
def test_the_keyword_judge_knows_every_phrasing(held_out: bool):
    judge = KeywordJudge()
    filled = [fill(phrasing, "making weapons") for phrasing in refusal_phrasings(held_out)]
    assert [text for text in filled if judge.judge("x", "", text).label != "refusal"] == []
