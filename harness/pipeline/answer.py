"""Stages in which the model answers: as a variant to test prompts, and as base to those that training needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.files import read_jsonl, write_jsonl
from harness.base.progress import progress
from harness.routing.counts import join, reorder
from harness.routing.files import load_counts, load_tokens, save_routing
from harness.routing.tokens import join_tokens, reorder_tokens
from harness.runs.journal import BatchJournal
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.data.task import Kind, Role
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session

_RESPONSES = PATHS.variant("{made.name}").responses("{task}")


def answers_key(session: Session, role: Role, task: str, **more: Any) -> str:
    """Return the fingerprint of answers to a task's prompts of one role."""
    plan = session.plan
    opening = {"opening": plan.opening(task)} if plan.opening(task) else {}
    prompts = [[prompt.id, prompt.text] for prompt in plan.prompts(role)[task]]
    return session.key(prompts=prompts, max_new_tokens=plan.max_new_tokens(task), **opening, **more)


def answer_in_batches(
    session: Session,
    name: str,
    key: str,
    role: Role,
    task: str,
    target: Path,
    system_prompt: str | None = None,
    routing: Path | None = None,
    with_tokens: bool = False,
) -> None:
    """Answer prompts and keep the answers in their order, batch by batch in a journal beside the target.

    Args:
        session: the run; its engine answers as the variant that is asked.
        name: shown on the progress bar.
        key: fingerprint of the work; batches of other work are thrown away.
        role: which prompts of the task are asked.
        task: the task.
        target: the JSONL file of the answers.
        system_prompt: precedes the conversation.
        routing: where to keep routing counts, if they are wanted.
        with_tokens: keep each answer's token ids too.
    """
    plan, engine = session.plan, session.engine
    prompts, opening = plan.prompts(role)[task], plan.opening(task)
    record = session.config.record if routing is not None else None
    journal = BatchJournal(target, key)
    batches = engine.batches(prompts, system_prompt, opening)
    missing = [i for i in range(len(batches)) if journal.rows(i) is None]
    remaining = [batches[i] for i in missing]
    results = engine.generate(
        remaining, plan.max_new_tokens(task), system_prompt, capture=record, opening=opening
    )
    with progress(name, len(prompts), "answers") as advance:
        advance(len(prompts) - sum(map(len, remaining)))
        for i, result in zip(missing, results, strict=True):
            if result.routing is not None:
                save_routing(result.routing, journal.path(i, ".safetensors"), result.tokens)
            journal.finish(i, [response.row(with_tokens) for response in result.responses])
            advance(len(batches[i]))
    ids = [prompt.id for prompt in prompts]
    if routing is not None:
        paths = [journal.path(i, ".safetensors") for i in range(len(batches))]
        counts = reorder(join([load_counts(path) for path in paths]), ids)
        kept = record != "counts"
        tokens = reorder_tokens(join_tokens([load_tokens(path) for path in paths]), ids) if kept else None
        save_routing(counts, routing, tokens)
    _collect(journal, len(batches), ids, target)


def _collect(journal: BatchJournal, batches: int, ids: list[str], target: Path) -> None:
    """Turn the journal's answers into one whole file, in the prompts' order."""
    rows = {row["id"]: row for i in range(batches) for row in journal.rows(i) or []}
    write_jsonl(target, [rows[name] for name in ids])


def _own_key(session: Session, task: str) -> str:
    return answers_key(session, "train", task, tokens=True)


@stage(
    "own answers {task}",
    writes=str(PATHS.own_answers("{task}")),
    key=_own_key,
    keeps=f"{PATHS.own_answers('{task}')}.partial",
)
def _own_answers(session: Session, task: str) -> None:
    path = session.folder.layout.own_answers(task)
    name, key = f"own answers {task}", _own_key(session, task)
    # Trained on as they are: an answer's text, tokenised again, may be other tokens.
    answer_in_batches(session, name, key, "train", task, path, with_tokens=True)


def own_answers(session: Session, kind: Kind) -> dict[str, list[dict[str, Any]]]:
    """Let the base model answer the train prompts of a kind; training holds it to some answers and away from others."""
    tasks = [task for task, prompts in session.plan.prompts("train", kind).items() if prompts]
    for task in tasks:
        _own_answers(session, task)
    return {task: read_jsonl(session.folder.layout.own_answers(task)) for task in tasks}


def _answer_key(session: Session, made: Prepared, task: str) -> str:
    return answers_key(session, "test", task, made=made.fingerprint)


@stage("answer {made.name}/{task}", writes=str(_RESPONSES), key=_answer_key, keeps=f"{_RESPONSES}.partial")
def answer(session: Session, made: Prepared, task: str) -> None:
    """Let a variant answer a task's test prompts; the engine answers as the variant."""
    name, key = f"answer {made.name}/{task}", _answer_key(session, made, task)
    path = session.folder.layout.variant(made.name).responses(task)
    answer_in_batches(session, name, key, "test", task, path, made.system_prompt)
