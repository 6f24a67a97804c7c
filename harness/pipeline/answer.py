"""Stages in which the model answers: as a variant to test prompts, and as base to those that training needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.base.files import read_jsonl, write_jsonl
from harness.base.progress import progress
from harness.data.answer import answer_id
from harness.data.reasoning import NO_ANSWER
from harness.routing.counts import join, reorder
from harness.routing.files import load_counts, load_tokens, save_routing
from harness.routing.tokens import join_tokens, reorder_tokens
from harness.runs.journal import BatchJournal
from harness.runs.layout import PATHS
from harness.runs.rows import BASE
from harness.runs.stages import Stage, stage

if TYPE_CHECKING:
    from harness.data.prompts import Prompt
    from harness.data.task import Kind
    from harness.engines.base import Sampling
    from harness.interventions.base import Prepared
    from harness.pipeline.plan import Plan
    from harness.pipeline.session import Session
    from harness.routing.counts import Record

# So many answers that never began are no accident.
_ENOUGH = 8
_RESPONSES = PATHS.variant("{made.name}").responses("{task}")


def answers_key(session: Session, asked: Sequence[Prompt], task: str, **more: Any) -> str:
    """Return the fingerprint of answers to some prompts of a task."""
    plan = session.plan
    opening = {"opening": plan.opening(task)} if plan.opening(task) else {}
    prompts = [[prompt.id, prompt.asked] for prompt in asked]
    return session.key(prompts=prompts, max_new_tokens=plan.max_new_tokens(task), **opening, **more)


def answer_in_batches(
    session: Session,
    name: str,
    key: str,
    prompts: Sequence[Prompt],
    task: str,
    target: Path,
    system_prompt: str | None = None,
    routing: Path | None = None,
    record: Record = "counts",
    with_tokens: bool = False,
    sampling: Sampling | None = None,
    must_begin: bool = False,
) -> None:
    """Answer prompts and keep the answers in their order, batch by batch in a journal beside the target.

    Args:
        session: the run; its engine answers as the variant that is asked.
        name: shown on the progress bar.
        key: fingerprint of the work; batches of other work are thrown away.
        prompts: what is asked.
        task: the task that they are of.
        target: the JSONL file of the answers.
        system_prompt: precedes the conversation.
        routing: where to keep routing counts, if they are wanted.
        record: how much of the routing to keep there.
        with_tokens: keep each answer's token ids too.
        sampling: how to draw answers; None for one greedy answer per prompt.
        must_begin: base answers, of which some must begin.

    Raises:
        HarnessError: none of the first answers began, so that nothing could be judged.
    """
    plan, engine = session.plan, session.engine
    opening = plan.opening(task)
    journal = BatchJournal(target, key)
    numbers: Sequence[int | None] = [None] if sampling is None else sampling.numbers
    batches = engine.batches(prompts, system_prompt, opening, len(numbers))
    missing = [i for i in range(len(batches)) if journal.rows(i) is None]
    remaining = [batches[i] for i in missing]
    capture = record if routing is not None else None
    results = engine.generate(
        remaining,
        plan.max_new_tokens(task),
        system_prompt,
        capture=capture,
        sampling=sampling,
        opening=opening,
    )
    silent = 0
    with progress(name, len(prompts) * len(numbers), "answers") as advance:
        advance((len(prompts) - sum(map(len, remaining))) * len(numbers))
        for i, result in zip(missing, results, strict=True):
            must_begin = must_begin and all(answer.never_began for answer in result.responses)
            if must_begin:
                silent += len(result.responses)
                _refuse_silence(silent, len(prompts), task, plan)
            if result.routing is not None:
                save_routing(result.routing, journal.path(i, ".safetensors"), result.tokens)
            journal.finish(i, [response.row(with_tokens) for response in result.responses])
            advance(len(result.responses))
    ids = [answer_id(prompt.id, number) for prompt in prompts for number in numbers]
    if routing is not None:
        paths = [journal.path(i, ".safetensors") for i in range(len(batches))]
        counts = reorder(join([load_counts(path) for path in paths]), ids)
        kept = record != "counts"
        tokens = reorder_tokens(join_tokens([load_tokens(path) for path in paths]), ids) if kept else None
        save_routing(counts, routing, tokens)
    _collect(journal, len(batches), ids, target)


def _refuse_silence(silent: int, asked: int, task: str, plan: Plan) -> None:
    """Stop where a model does nothing but think: what is measured on its answers would be nothing.

    Args:
        silent: answers so far, none of which began.
        asked: prompts.
        task: the task that they are of.
        plan: says how long an answer may be.
    """
    if silent < min(asked, _ENOUGH):
        return
    tokens = plan.chat.thinking.tokens
    within = (
        f"within {tokens} tokens"
        if tokens
        else f"within {plan.max_new_tokens(task)} tokens, reasoning included"
    )
    remedy = "--reasoning-tokens" if tokens else "--max-new-tokens"
    raise HarnessError(
        f"{task}: none of the first {silent} answers of the base model began {within} ({NO_ANSWER}): "
        f"raise {remedy}"
    )


def _collect(journal: BatchJournal, batches: int, ids: list[str], target: Path) -> None:
    """Turn the journal's answers into one whole file, in the order of their ids."""
    rows = {row["id"]: row for i in range(batches) for row in journal.rows(i) or []}
    write_jsonl(target, [rows[name] for name in ids])


def _own_key(session: Session, task: str) -> str:
    return answers_key(session, session.plan.prompts("train")[task], task, tokens=True)


@stage(
    "own answers {task}",
    writes=str(PATHS.own_answers("{task}")),
    key=_own_key,
    keeps=f"{PATHS.own_answers('{task}')}.partial",
)
def _own_answers(session: Session, task: str) -> None:
    path, prompts = session.folder.layout.own_answers(task), session.plan.prompts("train")[task]
    name, key = f"own answers {task}", _own_key(session, task)
    # Trained on as they are: an answer's text, tokenised again, may be other tokens.
    answer_in_batches(session, name, key, prompts, task, path, with_tokens=True, must_begin=True)


def own_answers(session: Session, kind: Kind) -> dict[str, list[dict[str, Any]]]:
    """Let the base model answer the train prompts of a kind; training holds it to some answers and away from others."""
    tasks = [task for task, prompts in session.plan.prompts("train", kind).items() if prompts]
    for task in tasks:
        _own_answers(session, task)
    return {task: read_jsonl(session.folder.layout.own_answers(task)) for task in tasks}


def _test_key(session: Session, made: Prepared, task: str, **more: Any) -> str:
    prompts, sampling = session.plan.test_prompts(made.variant)[task], session.plan.sampling
    sampled = {} if sampling is None else {"sampling": sampling._asdict()}
    return answers_key(session, prompts, task, made=made.fingerprint, **sampled, **more)


def _answer_key(session: Session, made: Prepared, task: str) -> str:
    return _test_key(session, made, task)


@stage("answer {made.name}/{task}", writes=str(_RESPONSES), key=_answer_key, keeps=f"{_RESPONSES}.partial")
def _answer(session: Session, made: Prepared, task: str) -> None:
    name, key = f"answer {made.name}/{task}", _answer_key(session, made, task)
    layout = session.folder.layout
    if made.name == BASE:
        # Routing of answers that are now given anew would be taken for theirs.
        layout.test_routing(task).unlink(missing_ok=True)
    path = layout.variant(made.name).responses(task)
    prompts = session.plan.test_prompts(made.variant)[task]
    sampling, is_base = session.plan.sampling, made.name == BASE
    answer_in_batches(
        session, name, key, prompts, task, path, made.system_prompt, sampling=sampling, must_begin=is_base
    )


def _routed_key(session: Session, made: Prepared, task: str) -> str:
    return _test_key(session, made, task, record="counts")


@stage(
    "answer {made.name}/{task}",
    writes=(str(_RESPONSES), str(PATHS.test_routing("{task}"))),
    key=_routed_key,
    keeps=f"{_RESPONSES}.partial",
)
def _answer_and_capture(session: Session, made: Prepared, task: str) -> None:
    """Let base answer test prompts with routing captured: they describe experts that they did not choose."""
    name, key, layout = f"answer {made.name}/{task}", _routed_key(session, made, task), session.folder.layout
    path, routing = layout.variant(made.name).responses(task), layout.test_routing(task)
    prompts = session.plan.test_prompts(made.variant)[task]
    sampling = session.plan.sampling
    answer_in_batches(
        session,
        name,
        key,
        prompts,
        task,
        path,
        made.system_prompt,
        routing,
        sampling=sampling,
        must_begin=True,
    )


def answer(session: Session, made: Prepared, task: str) -> None:
    """Let a variant answer a task's test prompts; the engine answers as the variant."""
    answering(session, made, task)(session, made, task)


def answering(session: Session, made: Prepared, task: str) -> Stage[[Session, Prepared, str]]:
    """Return the stage with capture where base answers test prompts of a task whose identify prompts choose experts."""
    plan = session.plan
    chooses = plan.selects and bool(plan.prompts("identify").get(task))
    if made.name != BASE or not chooses or plan.engine.why_answers_change_with_capture(session.config):
        return _answer
    return _answer_and_capture
