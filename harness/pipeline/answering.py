"""Stages that let the model answer: routing capture, its own answers for training, and the test prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.files import read_jsonl, write_jsonl
from harness.base.progress import progress
from harness.routing.counts import join, reorder
from harness.routing.files import load_counts, load_tokens, save_routing
from harness.routing.tokens import join_tokens, reorder_tokens
from harness.runs.journal import BatchJournal
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.data.prompts import Prompt
    from harness.data.task import Kind
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session


def answer_in_batches(
    session: Session,
    name: str,
    key: str,
    prompts: Sequence[Prompt],
    target: Path,
    max_new_tokens: int,
    system_prompt: str | None = None,
    routing: Path | None = None,
    opening: str = "",
) -> None:
    """Answer prompts and keep the answers in their order, batch by batch in a journal beside the target.

    Args:
        session: the run; its engine answers as the variant that is asked.
        name: shown on the progress bar.
        key: fingerprint of the work; batches of other work are thrown away.
        prompts: what is asked.
        target: the JSONL file of the answers.
        max_new_tokens: the longest answer.
        system_prompt: told to the model first.
        routing: where to keep routing counts, if they are wanted.
        opening: the beginning of the answer, given to the model; what is kept follows it.
    """
    journal = BatchJournal(target, key)
    batches = session.engine.batches(prompts, system_prompt, opening)
    missing = [i for i in range(len(batches)) if journal.rows(i) is None]
    record = session.config.record if routing is not None else None
    generated = session.engine.generate(
        [batches[i] for i in missing], max_new_tokens, system_prompt, capture=record, opening=opening
    )
    with progress(name, len(prompts), "answers") as advance:
        advance(sum(len(batch) for i, batch in enumerate(batches) if i not in set(missing)))
        for i, result in zip(missing, generated, strict=True):
            if result.routing is not None:
                save_routing(result.routing, journal.path(i, ".safetensors"), result.tokens)
            journal.finish(i, [response.row() for response in result.responses])
            advance(len(batches[i]))
    ids = [prompt.id for prompt in prompts]
    if routing is not None:
        _collect_routing(journal, len(batches), ids, routing, record != "counts")
    _collect(journal, len(batches), ids, target)


def _collect(journal: BatchJournal, batches: int, ids: Sequence[str], target: Path) -> None:
    """Turn the journal's answers into one whole file, in the prompts' order."""
    rows: dict[str, dict[str, Any]] = {}
    for i in range(batches):
        rows |= {row["id"]: row for row in journal.rows(i) or []}
    write_jsonl(target, [rows[name] for name in ids])


def _collect_routing(
    journal: BatchJournal, batches: int, ids: Sequence[str], target: Path, with_tokens: bool
) -> None:
    paths = [journal.path(i, ".safetensors") for i in range(batches)]
    counts = reorder(join([load_counts(path) for path in paths]), ids)
    tokens = reorder_tokens(join_tokens([load_tokens(path) for path in paths]), ids) if with_tokens else None
    save_routing(counts, target, tokens)


def _capture_key(session: Session, task: str) -> str:
    prompts = session.plan.prompts("identify")[task]
    tokens = session.plan.max_new_tokens(task)
    return session.key(prompts=contents(prompts), max_new_tokens=tokens, record=session.config.record)


@stage(
    "capture {task}",
    writes=("routing/{task}.jsonl", "routing/{task}.safetensors"),
    key=_capture_key,
    keeps="routing/{task}.jsonl.partial",
)
def capture(session: Session, task: str) -> None:
    """Answer a task's identify prompts with routing captured."""
    path, prompts = session.folder.routing(task), session.plan.prompts("identify")[task]
    key, tokens = _capture_key(session, task), session.plan.max_new_tokens(task)
    answer_in_batches(
        session, f"capture {task}", key, prompts, path.with_suffix(".jsonl"), tokens, routing=path
    )


def capture_routing(session: Session) -> None:
    """Answer the identify prompts of all tasks with routing captured."""
    for task in captured_tasks(session):
        capture(session, task)


def captured_tasks(session: Session) -> list[str]:
    """Return the tasks that have identify prompts."""
    return [task for task, prompts in session.plan.prompts("identify").items() if prompts]


def _own_key(session: Session, task: str) -> str:
    prompts = session.plan.prompts("train")[task]
    return session.key(prompts=contents(prompts), max_new_tokens=session.plan.max_new_tokens(task))


@stage(
    "own answers {task}",
    writes="training/{task}.jsonl",
    key=_own_key,
    keeps="training/{task}.jsonl.partial",
)
def _own_answers(session: Session, task: str) -> None:
    key, tokens = _own_key(session, task), session.plan.max_new_tokens(task)
    path = session.folder.path / "training" / f"{task}.jsonl"
    prompts = session.plan.prompts("train")[task]
    answer_in_batches(session, f"own answers {task}", key, prompts, path, tokens)


def own_answers(session: Session, kind: Kind) -> dict[str, list[dict[str, Any]]]:
    """Let the base model answer the train prompts of a kind; training holds it to some answers and away from others."""
    answers = {}
    for task, prompts in session.plan.prompts("train", kind).items():
        if prompts:
            _own_answers(session, task)
            answers[task] = read_jsonl(session.folder.path / "training" / f"{task}.jsonl")
    return answers


def _answer_key(session: Session, made: Prepared, task: str) -> str:
    opening = session.plan.opening(task)
    return session.key(
        made=made.fingerprint,
        prompts=contents(session.plan.prompts("test")[task]),
        max_new_tokens=session.plan.max_new_tokens(task),
        **({"opening": opening} if opening else {}),
    )


@stage(
    "answer {made.name}/{task}",
    writes="variants/{made.name}/responses/{task}.jsonl",
    key=_answer_key,
    keeps="variants/{made.name}/responses/{task}.jsonl.partial",
)
def answer(session: Session, made: Prepared, task: str) -> None:
    """Let a variant answer a task's test prompts; the engine answers as the variant."""
    answer_in_batches(
        session,
        f"answer {made.name}/{task}",
        _answer_key(session, made, task),
        session.plan.prompts("test")[task],
        session.folder.responses(made.name, task),
        session.plan.max_new_tokens(task),
        made.system_prompt,
        opening=session.plan.opening(task),
    )


def contents(prompts: Sequence[Prompt]) -> list[list[str]]:
    """Return the parts of the prompts that can change an answer."""
    return [[prompt.id, prompt.text] for prompt in prompts]
