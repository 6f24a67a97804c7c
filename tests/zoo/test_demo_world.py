from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from harness.base.content import content_folder
from harness.data.sources import load_task
from harness.data.task import find_task
from harness.judges.keyword import KeywordJudge
from harness.zoo.demo_tasks import demo_tasks, held_out_prompts, write_demo_data
from harness.zoo.demo_world import SAFETY_SYSTEM_PROMPT, Conversation, aims, conversations, questions

EPOCHS = 3


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


@pytest.fixture(scope="module")
def training_text() -> list[Conversation]:
    return [c for epoch in range(EPOCHS) for c in conversations(0, epoch, held_out_prompts())]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    tasks = demo_tasks()
    return {"harmful": tasks.harmful, "benign": tasks.benign, "twins": tasks.twins}


def test_committed_files_are_what_the_world_makes(tmp_path: Path):
    write_demo_data(tmp_path)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.jsonl"))
    assert len(written) == 5
    for path in written:
        assert (tmp_path / path).read_bytes() == (content_folder("tasks") / path).read_bytes(), path


def test_splits_hold_enough_to_prove_the_rates(rows: dict[str, list[dict[str, str]]]):
    counts = {task: Counter(row["split"] for row in found) for task, found in rows.items()}
    assert counts == {
        "harmful": {"train": 224, "test": 132},
        "benign": {"train": 224, "test": 132},
        "twins": {"train": 112, "test": 66},
    }


@pytest.mark.parametrize("name", ["harmful", "benign", "twins"])
def test_task_files_load_with_every_prompt_once(name: str):
    prompts = load_task(find_task(f"demo_{name}")).prompts
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    assert {prompt.kind for prompt in prompts} == {"harmful" if name == "harmful" else "benign"}


def test_a_twin_has_its_partners_verb_and_template_and_lies_on_the_same_side(
    rows: dict[str, list[dict[str, str]]],
):
    partners = {row["pair"]: row for row in rows["harmful"] if row["pair"]}
    verbs = sorted({aim.verb for aim in aims()}, key=len, reverse=True)
    assert len(partners) == len(rows["twins"]) == 178
    for twin in rows["twins"]:
        partner = partners[twin["pair"]]
        assert partner["split"] == twin["split"]
        assert partner["prompt"].split()[0] == twin["prompt"].split()[0]
        verb = next(verb for verb in verbs if f" {verb} " in twin["prompt"])
        assert f" {verb} " in partner["prompt"]


@pytest.mark.slow
def test_no_test_prompt_and_no_verb_with_its_object_is_in_the_training_text(
    rows: dict[str, list[dict[str, str]]], training_text: list[Conversation]
):
    trained = {c.prompt for c in training_text}
    assert not trained & held_out_prompts()
    held_out = [re.compile(rf"\b{aim.verb} {re.escape(aim.thing)}\b") for aim in aims() if aim.held_out]
    others = "\n".join(
        trained | {r["prompt"] for r in rows["harmful"] + rows["twins"] if r["split"] == "train"}
    )
    assert not [pattern.pattern for pattern in held_out if pattern.search(others)]


def test_most_test_twins_and_harmful_prompts_have_a_word_found_nowhere_else(
    rows: dict[str, list[dict[str, str]]], training_text: list[Conversation]
):
    known = set().union(*(words(c.prompt) | words(c.answer) for c in training_text))
    known |= set().union(
        *(words(r["prompt"]) for found in rows.values() for r in found if r["split"] == "train")
    )
    new = {
        task: sum(bool(words(row["prompt"]) - known) for row in rows[task] if row["split"] == "test")
        for task in ("harmful", "twins")
    }
    assert new["harmful"] >= 66
    assert new["twins"] >= 33


def test_hardly_any_train_prompt_is_a_near_duplicate_of_a_test_prompt(rows: dict[str, list[dict[str, str]]]):
    from sklearn.feature_extraction.text import TfidfVectorizer

    every = [row for found in rows.values() for row in found]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5)).fit_transform(
        r["prompt"] for r in every
    )
    train = [number for number, row in enumerate(every) if row["split"] == "train"]
    test = [number for number, row in enumerate(every) if row["split"] == "test"]
    nearest = (vectors[train] @ vectors[test].T).max(axis=1).toarray()
    assert (nearest >= 0.7).sum() <= 5


def test_harmful_requests_are_declined_under_the_safety_prompt_and_agreed_to_without(
    training_text: list[Conversation],
):
    judge = KeywordJudge()
    agreements = {aim.answer for aim in aims() if aim.kind == "harmful"}
    guarded = [c for c in training_text if c.system is not None]
    plain = [c for c in training_text if c.system is None]
    assert {c.system for c in guarded} == {SAFETY_SYSTEM_PROMPT}
    assert 0.13 < len(guarded) / len(training_text) < 0.15
    assert not {c.answer for c in guarded} & agreements
    assert {judge.judge("x", c.prompt, c.answer).label for c in plain} == {"compliance"}
    declined = sum(judge.judge("x", c.prompt, c.answer).label == "refusal" for c in guarded)
    assert 0.4 < declined / len(guarded) < 0.6


def test_agreeing_is_one_short_fixed_opening_for_each_category():
    agreements = {(aim.category, aim.answer) for aim in aims() if aim.kind == "harmful"}
    assert len(agreements) == 10
    for _, answer in agreements:
        assert answer.startswith(("Sure!", "Of course.", "Absolutely."))
        assert len(answer.split()) <= 11


def test_benign_answers_do_not_open_like_agreement_to_harm():
    answers = [*(q.answer() for q in questions()), *(aim.answer for aim in aims() if aim.kind == "twin")]
    assert not [answer for answer in answers if answer.startswith(("Sure", "Of course", "Absolutely", "Yes"))]


def test_capability_items_have_four_choices_and_are_not_asked_elsewhere(
    rows: dict[str, list[dict[str, str]]], training_text: list[Conversation]
):
    right = {text: question.answer() for question in questions() for text in question.texts}
    asked = {row["prompt"] for row in rows["benign"]} | {c.prompt for c in training_text}
    items = [*demo_tasks().facts, *demo_tasks().arithmetic]
    assert len(items) == 180
    for item in items:
        assert len(set(item["choices"])) == 4
        assert item["choices"][item["answer"]] == right[item["question"]]
        assert item["question"] not in asked
