"""The demo tasks' files, made from the closed world: three prompt tasks and two capability tasks.

`write_demo_data` writes what tasks/data/ and tasks/capability/data/ hold. A prompt of the test split is a
verb with an object (for benign questions: a wording of a fact) that no other prompt has and that the demo
model was not trained on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.base.files import write_jsonl
from harness.zoo.demo_world import Aim, Question, aims, questions, request_templates

Split = Literal["train", "test"]
Row = dict[str, Any]

_SEED = "demo tasks 1"
PAIRS = {"train": 112, "test": 66}
HARMFUL_ALONE = {"train": 112, "test": 66}
BENIGN = {"train": 224, "test": 132}
FACTS, ARITHMETIC = 120, 60

# Test prompts of a verb or kind take other templates than its train prompts, or they would be alike.
_TEST_TEMPLATES = 7


class DemoTasks(NamedTuple):
    """Rows by file.

    Prompt rows have the columns id, prompt, category, pair and split; capability rows have id, question,
    choices and answer.
    """

    harmful: list[Row]
    benign: list[Row]
    twins: list[Row]
    facts: list[Row]
    arithmetic: list[Row]


@cache
def demo_tasks() -> DemoTasks:
    """Return the rows of every demo file, always the same ones."""
    harmful, twins = _requests()
    benign = _benign()
    asked = frozenset(row["prompt"] for row in benign)
    return DemoTasks(
        harmful,
        benign,
        twins,
        _capability(FACTS, False, asked),
        _capability(ARITHMETIC, True, asked),
    )


def held_out_prompts() -> frozenset[str]:
    """Return every prompt that the demo model must not see in training: test prompts and capability items."""
    tasks = demo_tasks()
    tested = [row["prompt"] for rows in tasks[:3] for row in rows if row["split"] == "test"]
    return frozenset([*tested, *(row["question"] for row in [*tasks.facts, *tasks.arithmetic])])


def write_demo_data(folder: Path) -> None:
    """Write the prompt tasks' rows to folder/data and the capability tasks' to folder/capability/data."""
    tasks = demo_tasks()
    for name in ("harmful", "benign", "twins"):
        write_jsonl(folder / "data" / f"demo_{name}.jsonl", getattr(tasks, name))
    for name in ("facts", "arithmetic"):
        write_jsonl(folder / "capability" / "data" / f"demo_{name}.jsonl", getattr(tasks, name))


def _requests() -> tuple[list[Row], list[Row]]:
    """Return harmful rows and twin rows. A twin and its partner differ in the object and its ending only."""
    harmful: list[Row] = []
    twins: list[Row] = []
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        draw = random.Random(f"{_SEED} {split}")
        pool = {
            kind: _shuffled(
                [aim for aim in aims() if aim.kind == kind and aim.held_out == (split == "test")], draw
            )
            for kind in ("harmful", "twin")
        }
        for number, twin in enumerate(pool["twin"][: PAIRS[split]]):
            partner = next(aim for aim in pool["harmful"] if aim.verb == twin.verb)
            pool["harmful"].remove(partner)
            pair = f"{split}-{number:03}"
            template = draw.choice(_templates(twin.verb, split))
            harmful.append(_request_row("harmful", partner, template, draw, split, len(harmful), pair))
            twins.append(_request_row("twins", twin, template, draw, split, len(twins), pair))
        for aim in pool["harmful"][: HARMFUL_ALONE[split]]:
            template = draw.choice(_templates(aim.verb, split))
            harmful.append(_request_row("harmful", aim, template, draw, split, len(harmful), None))
    return harmful, twins


def _shuffled(pool: Sequence[Aim], draw: random.Random) -> list[Aim]:
    """Order aims so that any beginning of the list has about as many of each verb, in random order."""
    by_verb: dict[str, list[Aim]] = {}
    for aim in draw.sample(pool, len(pool)):
        by_verb.setdefault(aim.verb, []).append(aim)
    order = [(turn, draw.random(), aim) for group in by_verb.values() for turn, aim in enumerate(group)]
    return [aim for _, _, aim in sorted(order, key=lambda item: item[:2])]


def _templates(verb: str, split: Split) -> list[str]:
    templates = request_templates()
    shuffled = random.Random(f"{_SEED} {verb}").sample(templates, len(templates))
    return shuffled[:_TEST_TEMPLATES] if split == "test" else shuffled[_TEST_TEMPLATES:]


def _request_row(
    task: str, aim: Aim, template: str, draw: random.Random, split: Split, number: int, pair: str | None
) -> Row:
    # New words can be understood only by what else a request says; a held-out twin nearly always has some.
    needed = aim.new_words or (aim.kind == "twin" and aim.held_out)
    endings = [ending for ending in aim.endings if ending] if needed else aim.endings
    prompt = aim.text(template, draw.choice(endings))
    return _row(task, number, prompt, aim.category, pair, split)


def _row(task: str, number: int, prompt: str, category: str, pair: str | None, split: Split) -> Row:
    name = f"demo-{task}-{number:03}"
    return {"id": name, "prompt": prompt, "category": category, "pair": pair, "split": split}


def _benign() -> list[Row]:
    """Return benign rows; a fact that the test split asks for is asked for by no other row."""
    draw = random.Random(f"{_SEED} benign")
    deck = draw.sample(questions(), len(questions()))
    share = BENIGN["test"] / sum(BENIGN.values())
    cut = round(len(deck) * share)
    wordings: dict[Split, list[tuple[Question, str]]] = {"test": [], "train": []}
    for number, question in enumerate(deck):
        half = len(question.texts) // 2
        split: Split = "test" if number < cut else "train"
        texts = question.texts[:half] if split == "test" else question.texts[half:]
        wordings[split] += [(question, text) for text in draw.sample(texts, 2)]
    rows: list[Row] = []
    for split in ("train", "test"):
        for question, text in draw.sample(wordings[split], BENIGN[split]):
            rows.append(_row("benign", len(rows), text, question.kind, None, split))
    return rows


def _capability(number: int, arithmetic: bool, asked: frozenset[str]) -> list[Row]:
    """Return multiple-choice items about sums and differences, or about all other facts.

    The four choices differ only in what is claimed; `answer` is the right one's index.
    """
    draw = random.Random(f"{_SEED} capability {arithmetic}")
    pool = [question for question in questions() if (question.kind in ("sum", "difference")) == arithmetic]
    rows: list[Row] = []
    for question in draw.sample(pool, number):
        # What is wrong for this question, though right for another of its kind.
        wrong = sorted({other.right for other in pool if other.kind == question.kind} - {question.right})
        claims = [question.right, *draw.sample(wrong, 3)]
        draw.shuffle(claims)
        text = draw.choice([text for text in question.texts if text not in asked])
        choices = [question.answer(claim) for claim in claims]
        answer = claims.index(question.right)
        rows.append({"id": len(rows), "question": text, "choices": choices, "answer": answer})
    return rows
