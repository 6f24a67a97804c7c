"""The prompts behind recorded routing: those of our tasks, or whatever the file says of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.base.errors import BadInputError, nearest
from harness.data.answer import Answer
from harness.data.prompts import Prompt
from harness.data.sources import load_tasks
from harness.data.task import Kind, TaskSpec, list_tasks
from harness.routing.recorded import Recorded, read_recorded

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.data.prompts import PromptSet


class RecordedTask(NamedTuple):
    """What was recorded of a task: its prompts, each with what was recorded of its answer."""

    name: str
    kind: Kind
    version: int
    prompts: list[Prompt]
    recorded: list[Recorded]


def read_tasks(files: Sequence[Path], config: RunConfig) -> tuple[list[RecordedTask], tuple[PromptSet, ...]]:
    """Return what was recorded, by task, and the prompt sets of the tasks that the harness knows.

    Raises:
        BadInputError: a file cannot be read, a prompt is in no task or is there twice, or a task may not find experts.
    """
    lines: dict[str, list[Recorded]] = {}
    for file in files:
        for each in read_recorded(file):
            lines.setdefault(each.line.task, []).append(each)
    known = {spec.name: spec for spec in list_tasks(config.include)}
    specs = [known[name] for name in lines if name in known]
    for spec in specs:
        if "identify" not in spec.roles:
            raise BadInputError(
                f"{lines[spec.name][0].where}: task {spec.name} may not serve 'identify', but {', '.join(spec.roles)}"
            )
    sets = load_tasks(specs, config.data_dir) if specs else ()
    prompts = {each.spec.name: each.prompts for each in sets}
    return [
        _known(known[name], prompts[name], rows) if name in known else _other(name, rows, known)
        for name, rows in lines.items()
    ], sets


def _known(spec: TaskSpec, prompts: Sequence[Prompt], rows: list[Recorded]) -> RecordedTask:
    """Find the prompts of one of our tasks by what a file says of them."""
    by_id = {prompt.id: prompt for prompt in prompts}
    by_text = {prompt.text: prompt for prompt in prompts}
    found = []
    for each in rows:
        id, text = each.line.id, each.line.prompt
        prompt = by_id.get(id) if id is not None else by_text.get((text or "").strip())
        if prompt is None and id is not None:
            raise BadInputError(
                f"{each.where}: id: task {spec.name} has no prompt '{id}', {nearest(id, by_id)}"
            )
        if prompt is None:
            what = (
                "id or prompt: missing"
                if text is None
                else f"prompt: task {spec.name} has no prompt '{text[:60]}'"
            )
            raise BadInputError(f"{each.where}: {what}; expected one of its prompts, or its id")
        if text is not None and text.strip() != prompt.text:
            raise BadInputError(f"{each.where}: prompt: not that of '{prompt.id}' in task {spec.name}")
        if each.line.kind not in (None, spec.kind):
            raise BadInputError(
                f"{each.where}: kind: task {spec.name} is {spec.kind}, found {each.line.kind}"
            )
        found.append(prompt)
    _refuse_repeats(found, rows)
    return RecordedTask(spec.name, spec.kind, spec.version, found, rows)


def _other(name: str, rows: list[Recorded], known: Iterable[str]) -> RecordedTask:
    """Make the prompts of a task that the harness does not know."""
    kinds = {each.line.kind: each for each in rows}
    if None in kinds:
        raise BadInputError(
            f"{kinds[None].where}: kind: missing; expected harmful or benign, since the harness has no task '{name}' "
            f"({nearest(name, known)})"
        )
    if len(kinds) > 1:
        raise BadInputError(
            f"{kinds['benign'].where}: kind: task {name} is harmful in another row: expected one kind"
        )
    (kind,) = kinds
    assert kind is not None
    prompts = []
    for number, each in enumerate(rows):
        if not (each.line.prompt or "").strip():
            raise BadInputError(f"{each.where}: prompt: missing, since the harness has no task '{name}'")
        prompts.append(
            Prompt(
                id=str(number) if each.line.id is None else each.line.id,
                text=str(each.line.prompt).strip(),
                task=name,
                kind=kind,
                category=each.line.category,
            )
        )
    _refuse_repeats(prompts, rows)
    return RecordedTask(name, kind, 1, prompts, rows)


def _refuse_repeats(prompts: Sequence[Prompt], rows: Sequence[Recorded]) -> None:
    first: dict[str, Recorded] = {}
    for prompt, each in zip(prompts, rows, strict=True):
        if first.setdefault(prompt.id, each) is not each:
            raise BadInputError(
                f"{each.where}: prompt '{prompt.id}' of task {prompt.task} is in {first[prompt.id].where} too: "
                "expected one answer per prompt"
            )


def answer_of(prompt: Prompt, each: Recorded) -> Answer:
    """Return the answer that routing was recorded with, as a run keeps it."""
    return Answer(
        id=prompt.id,
        prompt=prompt.text,
        response=each.response,
        finish_reason=each.finish_reason,
        prompt_tokens=each.prompt_tokens,
        generated_tokens=each.generated_tokens,
        reasoning=(each.reasoning or "") if each.reasoning_tokens else None,
        reasoning_tokens=each.reasoning_tokens or None,
        messages=prompt.turns,
    )
