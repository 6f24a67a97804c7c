"""How a task was put to a run: only figures of one protocol can be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness.base.errors import BadInputError
from harness.base.fingerprint import fingerprint
from harness.data.task import AskedTask
from harness.runs.run import Run


@dataclass(frozen=True, slots=True)
class Protocol:
    """What two figures of one task must share.

    Attributes:
        task_version: the task's version; lm-eval's package version for a capability task.
        prompts: hash over the test prompts, whatever their order; for a capability task over the number of items and
            their limit.
        decoding: settings of generation as JSON; of a capability task those of lm-eval.
        judge: who labelled the answers; None for a capability task.
    """

    task_version: str
    prompts: str
    decoding: str
    judge: str | None

    def difference(self, other: Protocol) -> str | None:
        """Return in words what differs first, or None."""
        for what, mine, theirs in (
            ("task version", self.task_version, other.task_version),
            ("test prompts", self.prompts, other.prompts),
            ("decoding", self.decoding, other.decoding),
            ("judge", self.judge, other.judge),
        ):
            if mine != theirs:
                return f"{what} ({mine} and {theirs})"
        return None


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
    summary, splits = run.summary, run.splits
    versions = {task.name: str(task.version) for task in run.record.tasks}
    found: dict[str, Protocol] = {}
    for task in summary.tasks():
        asked = AskedTask.read(task)
        split = splits.tasks[asked.name]
        longest = summary.decoding.get("max_new_tokens")
        decoding = {
            "strategy": summary.decoding.get("strategy"),
            "max_new_tokens": longest.get(task) if isinstance(longest, dict) else longest,
            "chat_template_kwargs": summary.decoding.get("chat_template_kwargs"),
        }
        if asked.forced:
            decoding["opening"] = summary.decoding.get("opening")
        found[task] = Protocol(
            versions[asked.name],
            fingerprint([split.fingerprint, sorted(split.ids["test"])])[:12],
            json.dumps(decoding, sort_keys=True),
            summary.judge,
        )
    return found


def _of_capability_tasks(run: Run) -> dict[str, Protocol]:
    settings, version = run.record.config["capability"], run.record.versions["lm-eval"]
    found: dict[str, Protocol] = {}
    for row in run.summary.measurements:
        if row.kind == "capability" and row.task is not None and row.task not in found:
            found[row.task] = Protocol(
                f"lm-eval {version}",
                f"{row.n} items, limit {settings['limit']}",
                json.dumps(
                    {
                        "metric": row.metric,
                        "chat_template": settings["chat_template"],
                        "num_fewshot": settings.get("num_fewshot"),
                    },
                    sort_keys=True,
                ),
                None,
            )
    return found
