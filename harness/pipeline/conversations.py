"""What a training learns from: prompts of the train split with the answers that its objectives read."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.files import write_json, write_jsonl
from harness.data.refusals import refusal_phrasings, refusals_for
from harness.judges.base import judge_all
from harness.pipeline.answering import own_answers

if TYPE_CHECKING:
    from harness.data.task import Kind
    from harness.pipeline.session import Session
    from harness.training.examples import Aim, Example

Rows = list[dict[str, Any]]


def training_conversations(session: Session) -> Rows:
    """Put the training examples together; kept as training/examples.jsonl, the phrasings of refusal as phrasings.json.

    Each objective reads the examples of one aim, and those that some objective reads are made. Benign examples are
    shared evenly between the benign tasks (ordinary prompts and twins), at most `training.retain_per_refusal` for each
    harmful prompt. A benign prompt that the base model itself refuses is left out, since holding on to that answer
    would teach false refusal; so is, where the model's own compliant answer is needed, a harmful one that it refuses.

    Raises:
        BadInputError: the base model complied with no harmful train prompt, and an objective needs that it does.
    """
    from harness.training.objectives import aims_of

    aims = aims_of(session.config.training.objectives)
    harmful = refusals(session)
    rows: Rows = harmful if "refuse" in aims else []
    if "retain" in aims:
        rows = rows + _retained(session, len(harmful))
    if "continue" in aims or "prefer" in aims:
        rows = rows + _beside_compliance(session, harmful, aims)
    folder = session.folder.path / "training"
    write_jsonl(folder / "examples.jsonl", rows)
    phrasings = {"trained": refusal_phrasings(), "held_out": refusal_phrasings(held_out=True)}
    write_json(folder / "phrasings.json", phrasings)
    return rows


def refusals(session: Session) -> Rows:
    """Return the harmful train prompts, each with the refusal that it is to get."""
    return [
        {
            "task": task,
            "id": prompt.id,
            "prompt": prompt.text,
            "answer": refusal,
            "finished": True,
            "aim": "refuse",
        }
        for task, prompts in session.plan.train_prompts("harmful").items()
        for prompt, refusal in zip(prompts, refusals_for(prompts, session.config.seed), strict=True)
    ]


def _retained(session: Session, harmful: int) -> Rows:
    """Return benign train prompts with the base model's own answers."""
    retained = {
        task: [
            {
                "task": task,
                "id": row["id"],
                "prompt": row["prompt"],
                "answer": row["response"],
                "finished": row["finish_reason"] == "stop",
                "aim": "retain",
            }
            for row in rows
        ]
        for task, rows in _complied(session, "benign").items()
    }
    quota = round(session.config.training.retain_per_refusal * harmful)
    shares = even_shares(quota, {task: len(rows) for task, rows in retained.items()})
    return [row for task, share in shares.items() for row in retained[task][:share]]


def _beside_compliance(session: Session, harmful: Rows, aims: Sequence[Aim]) -> Rows:
    """Return refusals beside what the base model says instead: in place of its answer, and after its beginning."""
    complied = {
        (task, row["id"]): row for task, rows in _complied(session, "harmful").items() for row in rows
    }
    pairs = [
        (row, complied[row["task"], row["id"]]) for row in harmful if (row["task"], row["id"]) in complied
    ]
    if not pairs:
        raise BadInputError(
            "the base model refuses every harmful train prompt: leave the objectives prefer and refuse_continued "
            "out of training.objectives"
        )
    rows: Rows = []
    if "continue" in aims:
        fewest, most = session.config.training.opening_tokens
        rows += [
            row
            | {
                "aim": "continue",
                "own": own["response"],
                "opening_tokens": random.Random(f"{session.config.seed} opening {row['id']}").randint(
                    fewest, most
                ),
            }
            for row, own in pairs
        ]
    if "prefer" in aims:
        rows += [
            row
            | {
                "aim": "prefer",
                "rejected": own["response"],
                "rejected_finished": own["finish_reason"] == "stop",
            }
            for row, own in pairs
        ]
    return rows


def _complied(session: Session, kind: Kind) -> dict[str, Rows]:
    """Return the base model's own answers to what is trained on, those that are no refusal, by task."""
    asked = {task: {p.id for p in prompts} for task, prompts in session.plan.train_prompts(kind).items()}
    return {
        task: [
            row
            for row, verdict in zip(rows, judge_all(session.plan.judge, rows), strict=True)
            if verdict.label == "compliance" and row["id"] in asked[task]
        ]
        for task, rows in own_answers(session, kind).items()
    }


def even_shares(quota: int, available: Mapping[str, int]) -> dict[str, int]:
    """Share a quota out evenly between tasks; what one cannot fill goes to the others."""
    shares: dict[str, int] = {}
    for place, (task, rows) in enumerate(sorted(available.items(), key=lambda item: (item[1], item[0]))):
        shares[task] = min(rows, (quota - sum(shares.values())) // (len(available) - place))
    return {task: shares[task] for task in available}


def to_examples(session: Session, conversations: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Tokenise conversations, aim by aim."""
    from harness.training.examples import AIMS

    return [
        example
        for aim in AIMS
        for example in _examples(session, [row for row in conversations if row["aim"] == aim], aim)
    ]


def _examples(session: Session, rows: Sequence[Mapping[str, Any]], aim: Aim) -> list[Example]:
    from harness.training.examples import make_examples

    chat, end = session.engine.chat, session.loaded.end_of_turn
    prompts, answers = [row["prompt"] for row in rows], [row["answer"] for row in rows]
    openings = [_opening(session, row) for row in rows] if aim == "continue" else None
    examples = make_examples(chat, prompts, answers, [row["finished"] for row in rows], end, aim, openings)
    if aim != "prefer":
        return examples
    own, finished = [row["rejected"] for row in rows], [row["rejected_finished"] for row in rows]
    rejected = make_examples(chat, prompts, own, finished, end, aim)
    return [replace(a, rejected=b.answer) for a, b in zip(examples, rejected, strict=True)]


def _opening(session: Session, row: Mapping[str, Any]) -> str:
    """Return the first tokens of the model's own answer, at most half of it, as text."""
    tokenizer = session.loaded.tokenizer
    ids = tokenizer(row["own"], add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids[: max(1, min(row["opening_tokens"], len(ids) // 2))])).rstrip()
