"""What a run declares beforehand: the figure that a claim rests on, and the margins of costs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from harness.base.errors import BadInputError, nearest
from harness.capability.tasks import list_capability_tasks
from harness.config import GenerationConfig, RunConfig
from harness.data.task import TaskSpec, list_tasks
from harness.runs.metrics import METRICS


def check_declared(config: RunConfig, specs: Sequence[TaskSpec], capability: Collection[str]) -> None:
    """Check the declarations of a run.

    Raises:
        BadInputError: the claim's figure is no share of the answers to harmful prompts, or a margin is that of no task.
    """
    figure = config.claim.figure
    figures = [name for name, metric in METRICS.working() if metric.is_claimable]
    if figure is not None and figure not in figures:
        raise BadInputError(f"claim.figure: unknown figure '{figure}', {nearest(figure, figures)}")
    costs = {spec.name for spec in specs if spec.kind == "benign"} | {*capability}
    for task in config.margins.by_task:
        if task in costs:
            continue
        # A model's preset has margins of tasks that a run may leave out.
        known = {spec.name for spec in list_tasks(config.include) if spec.kind == "benign"}
        known |= list_capability_tasks(config.include).keys() | costs
        if task not in known:
            raise BadInputError(f"margins.by_task: unknown task '{task}', {nearest(task, known)}")


def check_sampling(settings: GenerationConfig) -> None:
    """Refuse settings of sampled answers in a run that samples none.

    Raises:
        BadInputError: says how to ask for sampled answers.
    """
    for name in ("temperature", "top_p"):
        value = getattr(settings, name)
        if value is not None and settings.answers is None:
            apart = " (experts are selected by --per-layer-share)" if name == "top_p" else ""
            raise BadInputError(
                f"generation.{name} = {value:g}: a run answers greedily unless it says how many answers to sample per "
                f"prompt, such as --answers 4{apart}"
            )
