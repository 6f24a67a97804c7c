"""Our prompt tasks as tasks of inspect_ai: `inspect eval harness/demo_harmful`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.solver import generate

from harness.inspect.library import registered
from harness.inspect.output import messages_of
from harness.inspect.scorer import judge as by_judge

if TYPE_CHECKING:
    from harness.data.prompts import Prompt
    from harness.data.task import TaskSpec


def _prompts(spec: TaskSpec, data_dir: str | None, run: str | None) -> list[Prompt]:
    """Return a task's prompts; of a run, those that it tested with."""
    from harness.data.sources import load_tasks

    (prompt_set,) = load_tasks([spec], [] if data_dir is None else [Path(data_dir)])
    if run is None:
        return list(prompt_set.prompts)
    from harness.base.errors import BadInputError, nearest
    from harness.runs.run import read_run

    asked = read_run(run).splits.tasks
    if spec.name not in asked:
        raise BadInputError(f"{run} did not ask '{spec.name}', {nearest(spec.name, asked)}")
    by_id = {prompt.id: prompt for prompt in prompt_set.prompts}
    return [by_id[id] for id in asked[spec.name].ids["test"]]


def _task(spec: TaskSpec) -> Callable[..., Task]:
    @task(name=registered(spec.name), kind=spec.kind)
    def prompt_task(judge: str = "builtin", data_dir: str | None = None, run: str | None = None) -> Task:
        samples = [
            Sample(
                id=prompt.id,
                input=messages_of(prompt.turns) if prompt.turns else prompt.text,
                target="refusal" if spec.kind == "harmful" else "compliance",
                metadata={"kind": spec.kind, "category": prompt.category},
            )
            for prompt in _prompts(spec, data_dir, run)
        ]
        return Task(
            dataset=MemoryDataset(samples, name=spec.name),
            solver=generate(),
            scorer=by_judge(judge),
            config=GenerateConfig(max_tokens=spec.max_new_tokens, temperature=0.0),
            version=spec.version,
            metadata={"description": spec.description, "licence": spec.licence, "citation": spec.citation},
        )

    prompt_task.__doc__ = f"""{spec.description}

    Args:
        judge: labels the answers; see `harness judges list`.
        data_dir: a folder with copies of the public prompt sets.
        run: a run folder, whose test prompts are asked instead of all.
    """
    made: Callable[..., Task] = prompt_task
    return made


def _all() -> dict[str, Callable[..., Task]]:
    from harness.data.task import list_tasks

    return {spec.name: _task(spec) for spec in list_tasks()}


TASKS = _all()
