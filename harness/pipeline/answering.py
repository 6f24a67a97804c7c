"""Stages that let the model answer: routing capture, its own answers for training, and the test prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.files import read_jsonl, write_jsonl
from harness.base.progress import progress
from harness.models.moe import ranges
from harness.routing.counts import RoutingCounts, join, reorder
from harness.routing.files import load_counts, load_tokens, save_routing
from harness.routing.tokens import join_tokens, reorder_tokens
from harness.runs.journal import BatchJournal

if TYPE_CHECKING:
    from harness.data.prompts import Prompt
    from harness.data.task import Kind
    from harness.pipeline.session import Session


def answer(
    session: Session,
    stage: str,
    key: str,
    prompts: Sequence[Prompt],
    target: Path,
    max_new_tokens: int,
    system_prompt: str | None = None,
    routing: Path | None = None,
    opening: str = "",
) -> None:
    """Answer prompts and keep the answers in their order, skipping what an earlier run finished.

    Args:
        session: the run; its model is in the state of the variant that answers.
        stage: the stage's name, also shown on the progress bar.
        key: the stage's fingerprint.
        prompts: what is asked.
        target: the JSONL file of the answers.
        max_new_tokens: the longest answer.
        system_prompt: told to the model first.
        routing: where to keep routing counts, if they are wanted.
        opening: the beginning of the answer, given to the model; what is kept follows it.
    """
    files = [target] if routing is None else [target, routing]
    if session.folder.is_done(stage, key, files):
        return
    with session.folder.stage(stage, key):
        journal = BatchJournal(target, key)
        batches = session.engine.batches(prompts, system_prompt, opening)
        missing = [i for i in range(len(batches)) if journal.rows(i) is None]
        record = session.config.record if routing is not None else None
        generated = session.engine.generate(
            [batches[i] for i in missing], max_new_tokens, system_prompt, capture=record, opening=opening
        )
        with progress(stage, len(prompts), "answers") as advance:
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
        journal.remove()


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


def capture_routing(session: Session) -> dict[str, RoutingCounts]:
    """Answer the identify prompts with routing captured; returns each task's counts."""
    plan = session.plan
    counts = {}
    for task, prompts in plan.prompts("identify").items():
        if not prompts:
            continue
        path = session.folder.routing(task)
        tokens = plan.max_new_tokens(task)
        key = session.key(prompts=contents(prompts), max_new_tokens=tokens, record=session.config.record)
        answer(session, f"capture {task}", key, prompts, path.with_suffix(".jsonl"), tokens, routing=path)
        counts[task] = load_counts(path)
        _check_origin(session, counts[task], prompts, path)
    return counts


def _check_origin(session: Session, counts: RoutingCounts, prompts: Sequence[Prompt], path: Path) -> None:
    """Refuse counts that were put into the run folder from elsewhere.

    Raises:
        BadInputError: they are of a model of another shape, or of other prompts.
    """
    outline = session.plan.outline
    found = (list(counts.layers), counts.counts.shape[-1], counts.experts_per_token)
    expected = (outline.layer_indices, outline.n_experts, outline.experts_per_token)
    if found != expected:
        raise BadInputError(
            f"{path} holds the routing of another model: {_shape(*found)}; {session.plan.ref.name} has "
            f"{_shape(*expected)}"
        )
    if counts.ids != tuple(prompt.id for prompt in prompts):
        raise BadInputError(
            f"{path} holds the routing of other prompts than this run's: delete it to capture again"
        )


def _shape(layers: list[int], experts: int, experts_per_token: int) -> str:
    return f"{len(layers)} MoE layers ({ranges(layers)}) of {experts} experts, {experts_per_token} a token"


def own_answers(session: Session, kind: Kind) -> dict[str, list[dict[str, Any]]]:
    """Let the base model answer the train prompts of a kind; training holds it to some answers and away from others."""
    plan = session.plan
    answers = {}
    for task, prompts in plan.prompts("train", kind).items():
        if not prompts:
            continue
        path = session.folder.path / "training" / f"{task}.jsonl"
        tokens = plan.max_new_tokens(task)
        key = session.key(prompts=contents(prompts), max_new_tokens=tokens)
        answer(session, f"own answers {task}", key, prompts, path, tokens)
        answers[task] = read_jsonl(path)
    return answers


def contents(prompts: Sequence[Prompt]) -> list[list[str]]:
    """Return what of the prompts can change an answer."""
    return [[prompt.id, prompt.text] for prompt in prompts]
