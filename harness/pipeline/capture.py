"""The stage that captures routing: the base model answers the prompts that experts are identified by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.pipeline.answer import answer_in_batches, answers_key
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.pipeline.session import Session


def capture_routing(session: Session) -> None:
    """Answer the identify prompts of all tasks with routing captured."""
    for task in captured_tasks(session):
        capture(session, task)


def captured_tasks(session: Session) -> list[str]:
    """Return the tasks that have identify prompts."""
    return [task for task, prompts in session.plan.prompts("identify").items() if prompts]


def _capture_key(session: Session, task: str) -> str:
    prompts = session.plan.prompts("identify")[task]
    return answers_key(session, prompts, task, record=session.config.record)


@stage(
    "capture {task}",
    writes=(str(PATHS.captured_answers("{task}")), str(PATHS.routing("{task}"))),
    key=_capture_key,
    keeps=f"{PATHS.captured_answers('{task}')}.partial",
)
def capture(session: Session, task: str) -> None:
    """Answer a task's identify prompts with routing captured."""
    layout = session.folder.layout
    answer_in_batches(
        session,
        f"capture {task}",
        _capture_key(session, task),
        session.plan.prompts("identify")[task],
        task,
        layout.captured_answers(task),
        routing=layout.routing(task),
        record=session.config.record,
        must_begin=True,
    )
