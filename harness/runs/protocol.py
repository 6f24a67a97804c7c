"""How a task was put to a run: only figures of one protocol can be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.base.files import read_json
from harness.base.fingerprint import fingerprint
from harness.data.task import asked_task
from harness.runs.summary import Summary


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


def protocols(run: Path, summary: Summary) -> dict[str, Protocol]:
    """Return each task's protocol, from run.json, splits.json and the summary.

    Raises:
        BadInputError: one of the two files is missing or is not what a run writes.
    """
    record, splits = _read(run / "run.json"), _read(run / "splits.json")
    try:
        return {
            **_of_prompt_tasks(record, splits, summary),
            **_of_capability_tasks(record, summary),
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"{run}: run.json or splits.json is not what a run writes ({error!r})") from None


def _of_prompt_tasks(
    record: Mapping[str, Any], splits: Mapping[str, Any], summary: Summary
) -> dict[str, Protocol]:
    versions = {task["name"]: str(task["version"]) for task in record["tasks"]}
    found: dict[str, Protocol] = {}
    for variant in summary.variants.values():
        for task, result in variant.tasks.items():
            asked = asked_task(task)
            split = splits["tasks"][asked]
            longest = summary.decoding.get("max_new_tokens")
            decoding = {
                "strategy": summary.decoding.get("strategy"),
                "max_new_tokens": longest.get(task) if isinstance(longest, dict) else longest,
                "chat_template_kwargs": summary.decoding.get("chat_template_kwargs"),
            }
            if asked != task:
                decoding["opening"] = summary.decoding.get("opening")
            found[task] = Protocol(
                versions[asked],
                fingerprint([split["fingerprint"], sorted(split["ids"]["test"])])[:12],
                json.dumps(decoding, sort_keys=True),
                result.judge,
            )
    return found


def _of_capability_tasks(record: Mapping[str, Any], summary: Summary) -> dict[str, Protocol]:
    settings, version = record["config"]["capability"], record["versions"]["lm-eval"]
    found: dict[str, Protocol] = {}
    for variant in summary.variants.values():
        for task, result in variant.capability.items():
            found[task] = Protocol(
                f"lm-eval {version}",
                f"{result.n} items, limit {settings['limit']}",
                json.dumps(
                    {
                        "metric": result.metric,
                        "chat_template": settings["chat_template"],
                        "num_fewshot": settings.get("num_fewshot"),
                    },
                    sort_keys=True,
                ),
                None,
            )
    return found


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise BadInputError(f"{path}: no such file; expected the folder of a finished run") from None
    except ValueError as error:
        raise BadInputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise BadInputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
