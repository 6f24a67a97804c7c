"""How a run asked a task: only figures of one protocol can be compared."""

from __future__ import annotations

import json

from harness.base.errors import BadInputError
from harness.base.fingerprint import fingerprint
from harness.data.task import AskedTask
from harness.runs.rows import Part
from harness.runs.run import Run

_WORDS = {
    "task_version": "task version",
    "prompts": "test prompts",
    "judge_fingerprint": "version of the judge",
}


class Protocol(Part):
    """The settings that two comparable figures of a task share."""

    task_version: str
    """The task's version; lm-eval's package version for a capability task."""
    prompts: str
    """A hash over the test prompts, whatever their order; for a capability task the number of items and their limit."""
    decoding: str
    """The settings of generation as JSON; for a capability task those of lm-eval."""
    judge: str | None
    """The judge of the answers; None for a capability task."""
    judge_fingerprint: str | None = None
    """Changes whenever the same answer might get another verdict; None in references of earlier versions."""

    def differs_in(self, other: Protocol) -> str | None:
        """Return the name of the first field that differs, or None."""
        for field, value in self:
            theirs = getattr(other, field)
            if value != theirs and not (field == "judge_fingerprint" and None in (value, theirs)):
                return field
        return None

    def difference(self, other: Protocol) -> str | None:
        """Return in words what differs first, or None."""
        field = self.differs_in(other)
        if field is None:
            return None
        return f"{_WORDS.get(field, field)} ({getattr(self, field)} and {getattr(other, field)})"


def protocols(run: Run) -> dict[str, Protocol]:
    """Return each task's protocol, from run.json, splits.json and the summary.

    Raises:
        BadInputError: one of the files is missing or is not what a run writes.
    """
    try:
        return {**_of_prompt_tasks(run), **_of_capability_tasks(run)}
    except (KeyError, TypeError) as error:
        raise BadInputError(
            f"{run.path}: run.json or splits.json is not what a run writes ({error!r})"
        ) from None


def _of_prompt_tasks(run: Run) -> dict[str, Protocol]:
    summary = run.summary
    versions = {task.name: str(task.version) for task in run.record.tasks}
    made: dict[str, Protocol] = {}
    for task in summary.tasks():
        asked = AskedTask.read(task)
        split = run.splits.tasks[asked.name]
        longest = summary.decoding.get("max_new_tokens")
        given = [
            ("opening", asked.forced),
            *(
                (name, name in summary.decoding)
                for name in ("followed", "thinking", "answers", "temperature", "top_p")
            ),
        ]
        names = ["strategy", "chat_template_kwargs", *(name for name, is_given in given if is_given)]
        decoding = {name: summary.decoding.get(name) for name in names}
        decoding["max_new_tokens"] = longest.get(task) if isinstance(longest, dict) else longest
        made[task] = Protocol(
            task_version=versions[asked.name],
            prompts=fingerprint([split.fingerprint, sorted(split.ids["test"])])[:12],
            decoding=json.dumps(decoding, sort_keys=True),
            judge=summary.judge,
            judge_fingerprint=summary.judge_fingerprint(summary.judge),
        )
    return made


def _of_capability_tasks(run: Run) -> dict[str, Protocol]:
    rows = {str(row.task): row for row in run.summary.measurements if row.kind == "capability"}
    if not rows:
        return {}
    imported = {
        task: origin for variant in run.variants for task, origin in run.imported(variant).origins.items()
    }
    made = {
        task: Protocol(
            task_version=f"lm-eval {origin.lm_eval}, version {origin.task_version} of the task",
            prompts=f"{origin.n} items, limit {origin.limit}",
            decoding=json.dumps(
                {
                    "metric": rows[task].metric,
                    "chat_template": origin.chat_template,
                    "num_fewshot": origin.num_fewshot,
                },
                sort_keys=True,
            ),
            judge=None,
        )
        for task, origin in imported.items()
        if task in rows
    }
    if rows.keys() <= made.keys():
        return made
    settings, version = run.record.config["capability"], run.record.versions["lm-eval"]
    decoding = {"chat_template": settings["chat_template"], "num_fewshot": settings.get("num_fewshot")}
    decoding |= {name: run.summary.decoding[name] for name in ("thinking",) if name in run.summary.decoding}
    return made | {
        task: Protocol(
            task_version=f"lm-eval {version}",
            prompts=f"{row.n} items, limit {settings['limit']}",
            decoding=json.dumps({"metric": row.metric, **decoding}, sort_keys=True),
            judge=None,
        )
        for task, row in rows.items()
        if task not in made
    }
