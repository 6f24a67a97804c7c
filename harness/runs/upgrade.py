"""Run folders of summary version 1: completes run.json with records that only their summary has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.files import read_json, write_json
from harness.data.refusals import refusal_phrasings
from harness.data.task import AskedTask
from harness.runs.summary import Summary, read_summary

if TYPE_CHECKING:
    from harness.runs.run_folder import RunFolder


def upgrade(folder: RunFolder) -> None:
    """Complete the run.json of a finished run of version 1, so that it can be measured and judged again.

    A folder of another version, or without a summary, is left as it is.

    Raises:
        BadInputError: the summary cannot be read.
    """
    path = folder.layout.summary
    if "asked" in folder.state or not path.is_file():
        return
    summary = read_summary(folder.path)
    if read_json(path)["schema_version"] != 1:
        return
    if any(variant.trained_parameters for variant in summary.variants.values()):
        # They have not changed since.
        phrasings = {"trained": refusal_phrasings(), "held_out": refusal_phrasings(held_out=True)}
        write_json(folder.layout.phrasings, phrasings)
    folder.update(_records(summary, folder.state))


def _records(summary: Summary, state: dict[str, Any]) -> dict[str, Any]:
    topic = None if summary.selection is None else summary.selection.topic
    longest = summary.decoding["max_new_tokens"]
    return {
        "model": {**state["model"], **summary.model.model_dump()},
        "engine": summary.decoding["engine"],
        "variants": {name: variant.specification for name, variant in summary.variants.items()},
        "asked": {
            task: {
                "kind": kind,
                "max_new_tokens": longest[task] if isinstance(longest, dict) else longest,
                "opening": summary.decoding.get("opening", "") if AskedTask.read(task).forced else "",
            }
            for task, kind in summary.tasks().items()
        },
        "control_tasks": topic.control if topic is not None else [],
        "judges": {
            name: judge.model_dump(include={"measures", "fingerprint"})
            for name, judge in summary.judges.items()
        },
        "evaluated": {
            name: {"trained": variant.trained_parameters > 0, "skipped": variant.skipped}
            for name, variant in summary.variants.items()
        },
    }
