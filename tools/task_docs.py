"""The reference page of prompt tasks: those of tasks/, and the fields of a task file."""

from __future__ import annotations

from harness.data.sources import load_task
from harness.data.task import Hub, TaskSpec, list_tasks
from tools.markdown import generated, table
from tools.summary_docs import parts_of, section


def page() -> str:
    """Return the page: the shipped tasks first, then each part of a task file where it is first named."""
    introduction = (
        "The shipped tasks of `tasks/`, and the fields of a task file (`harness/data/task.py`); "
        "[prompt tasks](../tasks.md) is the guide. `harness tasks show NAME` prints licence, terms and citation. "
        "Sizes, licences and ids of the sets whose data were not at hand come from their papers and cards: a column "
        "that is called otherwise is refused by name."
    )
    shipped = table(["task", "kind", "prompts", "files under `--data-dir`", "hub"], map(_row, list_tasks()))
    return generated("Prompt tasks", introduction, shipped, *map(section, parts_of(TaskSpec)))


def _row(spec: TaskSpec) -> list[str]:
    source, size = spec.source, spec.size
    if source.package_files:
        size = len(load_task(spec).prompts)
    files = ", ".join(f"`{name}`" for name in source.files) or "shipped in the package"
    hub = "" if source.hub is None else _hub(source.hub)
    return [f"`{spec.name}`", spec.kind, "" if size is None else f"{size:,}", files, hub]


def _hub(hub: Hub) -> str:
    notes = {"asks for a login": hub.gated, "not confirmed": not hub.confirmed}
    said = [note for note, holds in notes.items() if holds]
    return f"{hub.path} ({', '.join(said)})" if said else hub.path
