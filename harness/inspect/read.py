"""A log of inspect_ai as a variant's answers to a task."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, first_line, nearest
from harness.base.files import sha256
from harness.base.progress import say
from harness.data.answer import answer_id
from harness.data.conversation import Asked, as_messages, text_of
from harness.data.task import AskedTask, Kind, list_tasks
from harness.inspect.write import KEY
from harness.interventions.spec import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import ChatMessage

_VERSIONS = (1, 2)
"""The versions of the log's format that are read; inspect_ai reads 1 as 2."""


@dataclass(frozen=True)
class Log:
    """What a log says.

    Attributes:
        path: its file.
        variant: the name of the model that answered, for a row of a leaderboard.
        model: the model, as inspect_ai names it.
        task: the task's name; TASK@forced for a forced start.
        kind: whether its prompts are harmful or benign.
        version: the task's.
        rows: the answers, as rows of responses/TASK.jsonl, in the order in which they were asked.
        failed: why there is no answer to a sample, by the answer's id.
        max_new_tokens: the longest answer; 0 where nothing says.
        sampling: how answers were sampled, as run.json keeps it; None for one greedy answer per prompt,
            or where nothing says.
        system: the system prompt, the same for all samples; None without one.
        created: when the evaluation began.
        about: what our own export adds; empty in logs of other origin.
        specification: of the variant, from our own export.
    """

    path: Path
    variant: str
    model: str
    task: str
    kind: Kind
    version: int | str
    rows: list[dict[str, Any]]
    failed: Mapping[str, str]
    max_new_tokens: int
    sampling: dict[str, Any] | None
    system: str | None
    created: str
    about: dict[str, Any]
    specification: dict[str, Any]

    @property
    def prompts(self) -> dict[str, str]:
        """The text of each prompt by its id."""
        return {row["prompt_id"]: row["prompt"] for row in self.rows}

    def origin(self) -> dict[str, Any]:
        """Return where the answers are from, as run.json keeps it."""
        return {"log": str(self.path.absolute()), "sha256": sha256(self.path), "model": self.model}


def read_log(path: Path, name: str | None, kinds: Mapping[str, Kind]) -> Log:
    """Read a log.

    Args:
        path: an `.eval` or `.json` file.
        name: what to call the variant; by default after the model.
        kinds: the kinds of tasks that the harness does not know.

    Raises:
        BadInputError: it is no log of a version that is read, or says too little.
    """
    log = _read(path)
    about = (log.eval.metadata or {}).get(KEY) or {}
    if not isinstance(about, dict) or (about and not {"variant", "asked", "config"} <= about.keys()):
        raise BadInputError(f"{path}: metadata: {KEY}: not what `harness export --format inspect` writes")
    if not log.samples:
        raise BadInputError(f"{path}: the log has no samples (status {log.status})")
    if log.status != "success":
        say(f"{path}: the evaluation ended with status {log.status}; it has {len(log.samples)} samples")
    task = _task_name(log.eval.task)
    rows, failed = _rows(path, log)
    specification = log.eval.model_args.get("variant")
    return Log(
        path=path,
        variant=name or str(about.get("variant") or name_of(log.eval.model.rstrip("/").rpartition("/")[2])),
        model=log.eval.model,
        task=task,
        kind=about["asked"]["kind"] if about else _kind(path, task, kinds),
        version=log.eval.task_version,
        rows=rows,
        failed=failed,
        max_new_tokens=log.eval.model_generate_config.max_tokens
        or max((row.get("generated_tokens") or 0 for row in rows), default=0),
        sampling=about.get("sampling") if about else _sampling(log),
        system=_system(path, log.samples),
        created=log.eval.created,
        about=about,
        specification=specification if about and isinstance(specification, dict) else {},
    )


def _read(path: Path) -> EvalLog:
    from inspect_ai.log import read_eval_log

    if not path.is_file():
        raise BadInputError(f"{path}: no such file; expected a log of inspect_ai")
    try:
        log = read_eval_log(path, resolve_attachments=True)
    except Exception as error:
        # A zip file that is none, JSON that is none, fields of another version: each its own error.
        raise BadInputError(f"{path}: inspect_ai cannot read it as a log: {first_line(error)}") from error
    if log.version not in _VERSIONS:
        raise BadInputError(f"{path}: version: expected a log of version 1 or 2, found {log.version}")
    return log


def _task_name(task: str) -> str:
    asked = AskedTask.read(task.rpartition("/")[2])
    return str(AskedTask(re.sub(r"[^A-Za-z0-9_-]+", "-", asked.name), asked.forced))


def _kind(path: Path, task: str, kinds: Mapping[str, Kind]) -> Kind:
    if task in kinds:
        return kinds[task]
    ours = {spec.name: spec.kind for spec in list_tasks()}
    if task not in ours:
        close = nearest(task, kinds) if kinds else "the harness has no task of this name"
        raise BadInputError(f"{path}: task '{task}': expected --harmful {task} or --benign {task} ({close})")
    return ours[task]


def _rows(path: Path, log: EvalLog) -> tuple[list[dict[str, Any]], dict[str, str]]:
    from harness.inspect.output import row_of

    samples = log.samples or []
    # inspect_ai sorts samples by their ids; which near-duplicate stands for its group depends on the order.
    order = {str(id): place for place, id in enumerate(log.eval.dataset.sample_ids or [])}
    several = (log.eval.config.epochs or 1) > 1
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for sample in sorted(samples, key=lambda each: (order.get(str(each.id), len(order)), each.epoch)):
        number = sample.epoch if several else None
        id = answer_id(str(sample.id), number)
        asked = _asked(path, sample)
        row = row_of(sample.output, id, text_of(asked)) | {"prompt_id": str(sample.id)}
        if not isinstance(asked, str):
            row["messages"] = as_messages(asked)
        rows.append(row if number is None else row | {"number": number})
        if sample.error is not None:
            failed[id] = f"error in inspect_ai: {first_line(Exception(sample.error.message))}"
    repeated = len(rows) - len({row["id"] for row in rows})
    if repeated:
        raise BadInputError(f"{path}: {repeated} samples have the id and epoch of another")
    return rows, failed


def _asked(path: Path, sample: EvalSample) -> Asked:
    from harness.inspect.output import asked_of

    given = [] if isinstance(sample.input, str) else sample.input
    answers = _answers(sample.messages) - _answers(given)
    if answers > 1:
        raise BadInputError(
            f"{path}: sample '{sample.id}': expected one answer, found a dialogue with {answers}"
        )
    try:
        return asked_of(sample.input)
    except ValueError as error:
        raise BadInputError(f"{path}: sample '{sample.id}': input: {error}") from None


def _answers(messages: Sequence[ChatMessage]) -> int:
    return sum(message.role == "assistant" for message in messages)


def _system(path: Path, samples: Sequence[EvalSample]) -> str | None:
    systems = {"\n\n".join(_added(sample)) for sample in samples}
    if len(systems) > 1:
        say(f"{path}: samples have {len(systems)} different system prompts, which are not kept")
        return None
    return systems.pop() or None


def _added(sample: EvalSample) -> list[str]:
    """Return the system messages that are no part of the sample's own conversation."""
    own = (
        []
        if isinstance(sample.input, str)
        else [message.text for message in sample.input if message.role == "system"]
    )
    given = [message.text for message in sample.messages if message.role == "system"]
    return [text for text in given if text not in own]


def _sampling(log: EvalLog) -> dict[str, Any] | None:
    epochs, config = log.eval.config.epochs or 1, log.eval.model_generate_config
    if epochs == 1 and not config.temperature:
        return None
    return {
        "answers": epochs,
        "temperature": 1.0 if config.temperature is None else config.temperature,
        "top_p": 1.0 if config.top_p is None else config.top_p,
        "seed": config.seed or 0,
        "not_seeded": "inspect_ai asked the model",
    }
