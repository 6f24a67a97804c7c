"""The prompts that lm-eval is to ask: those that a run would test with, or that one did."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.capability.prompt_tasks import Asked
from harness.config import make_config
from harness.data.group import expand
from harness.data.sources import load_tasks
from harness.data.splits import make_splits
from harness.data.task import AskedTask, find_task, list_tasks
from harness.runs.rows import BASE
from harness.runs.run import read_run


def tasks_of_splits(settings: Mapping[str, Any]) -> list[Asked]:
    """Return tasks with their test prompts, as a run with these settings would split them.

    Raises:
        BadInputError: a name is unknown, data cannot be had, or a task asks conversations.
    """
    config = make_config(settings)
    specs = [find_task(name, config.include) for name in expand(config.tasks, config.include)]
    if not specs:
        raise BadInputError(
            "--tasks: expected at least one prompt task, found none; see `harness tasks list`"
        )
    splits = make_splits(load_tasks(specs, config.data_dir), seed=config.seed_of_splits)
    asked = []
    for spec in specs:
        prompts = splits.require(spec.name, "test", 1)
        _refuse_conversations(spec.name, any(prompt.turns for prompt in prompts))
        rows = [(prompt.id, prompt.text) for prompt in prompts]
        asked.append(Asked(spec.name, spec.kind, spec.version, spec.description, spec.max_new_tokens, rows))
    return asked


def tasks_of_run(path: Path) -> list[Asked]:
    """Return the tasks of a run with the prompts that base answered in it.

    Forced starts are left out.

    Raises:
        BadInputError: it is no run, base has answered nothing in it, or a task asks conversations.
    """
    run = read_run(path)
    tasks = {task.name: task for task in run.record.tasks}
    words = {spec.name: spec.description for spec in list_tasks()}
    asked = []
    for name, how in run.record.asked.items():
        if AskedTask.read(name).forced or name not in run.answered(BASE):
            continue
        answers = run.answers(BASE, name)
        _refuse_conversations(name, any(answer.messages for answer in answers))
        prompts = {answer.prompt_id: answer.prompt for answer in answers}
        version, about = tasks[name].version, words.get(name, name)
        asked.append(Asked(name, how.kind, version, about, how.max_new_tokens, [*prompts.items()]))
    if not asked:
        raise BadInputError(f"{path}: base has answered no test prompts yet: evaluate first")
    return asked


def _refuse_conversations(task: str, has_any: bool) -> None:
    if has_any:
        raise BadInputError(
            f"task {task} asks conversations of several turns, which lm-eval's tasks cannot hold"
        )
