"""Logs of inspect_ai as a run: their answers are judged, compared and gated as those of any run, without a model."""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.files import write_json, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.config import make_config
from harness.data.task import AskedTask, Kind
from harness.inspect.library import require_inspect
from harness.interventions.spec import BASE
from harness.judges.base import Judge, Verdict, judge_all, judge_record, require_measure
from harness.judges.find import make_judge
from harness.pipeline.judge import judge_with_others
from harness.pipeline.session import package_versions
from harness.report.write import write_measured
from harness.runs.layout import Layout
from harness.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from harness.inspect.read import Log
    from harness.runs.summary import Summary

_UNKNOWN = {
    "fingerprint": "",
    **dict.fromkeys(("moe_layers", "experts_per_layer", "experts_per_token", "parameters"), 0),
}
Logs = dict[str, dict[str, "Log"]]
"""By variant, base first, and by task."""


def import_logs(
    logs: Sequence[str], output: Path, *, judge: str | None = None, kinds: Mapping[str, Kind] | None = None
) -> Summary:
    """Write a run of the answers that logs hold.

    Args:
        logs: files, or folders of `.eval` files; NAME=FILE names the variant. The first one's is base, unless one is
            called base.
        output: a new or empty folder.
        judge: labels the answers; by default the judge of a run that the logs were exported from, or builtin.
        kinds: whether the prompts of a task are harmful or benign, of tasks that the harness does not know.

    Raises:
        BadInputError: a log cannot be read, two do not belong together, or the folder holds something.
    """
    require_inspect("harness import")
    if Layout(output).is_run():
        raise BadInputError(f"{output} holds a run already: name another --output")
    by_variant = _together([_named(text, kinds or {}) for text in _files(logs)])
    first = next(iter(by_variant[BASE].values()))
    reader = make_judge(judge or next(iter(first.about.get("judges", {})), "builtin"))
    tasks = {task: log for of in by_variant.values() for task, log in of.items()}
    for task in tasks:
        require_measure(reader, "refusal", task)
    folder = RunFolder(output)
    folder.describe(_facts(by_variant, tasks, reader))
    write_json(folder.layout.splits, {"tasks": _splits(tasks)})
    for variant, of in by_variant.items():
        files = folder.layout.variant(variant)
        for task, log in of.items():
            rows = [{key: row[key] for key in row if key != "prompt_id"} for row in log.rows]
            write_jsonl(files.responses(task), rows)
            verdicts = (_unscored_where_failed(verdict, log) for verdict in judge_all(reader, rows))
            write_jsonl(files.verdicts(task, reader.name), (verdict.row() for verdict in verdicts))
        folder.note_evaluated(variant, trained=False, tasks=None if of.keys() == tasks.keys() else list(of))
    judge_with_others(folder)
    return write_measured(folder)


def _unscored_where_failed(verdict: Verdict, log: Log) -> Verdict:
    if verdict.id not in log.failed:
        return verdict
    return replace(verdict, label=None, reason=log.failed[verdict.id], probability=None, finer=None)


def _files(logs: Sequence[str]) -> list[str]:
    """Return the files that are named, those of folders in the order of their names."""
    files: list[str] = []
    for text in logs:
        if Path(text).is_dir():
            inside = sorted(Path(text).glob("*.eval"))
            if not inside:
                raise BadInputError(f"{text}: no .eval file in this folder")
            files += map(str, inside)
        else:
            files.append(text)
    return files


def _named(text: str, kinds: Mapping[str, Kind]) -> Log:
    from harness.inspect.read import read_log

    name, equals, path = text.partition("=")
    if Path(text).is_file() or not equals:
        return read_log(Path(text), None, kinds)
    if not name.replace("_", "").replace("-", "").isalnum():
        raise BadInputError(
            f"{text}: expected NAME=LOG with a name of letters, digits, - and _, found '{name}'"
        )
    return read_log(Path(path), name, kinds)


def _together(logs: Sequence[Log]) -> Logs:
    """Share logs out to variants, and refuse what cannot be compared."""
    by_variant: Logs = {}
    for log in logs:
        known = by_variant.setdefault(log.variant, {}).setdefault(log.task, log)
        if known is not log:
            raise BadInputError(
                f"{known.path} and {log.path} are both of '{log.variant}' and task '{log.task}': name them, as in "
                f"before={known.path} after={log.path}"
            )
    base = BASE if BASE in by_variant else next(iter(by_variant))
    ordered = {BASE: by_variant.pop(base), **by_variant}
    for variant, of in by_variant.items():
        if not of.keys() & ordered[BASE].keys():
            raise BadInputError(
                f"'{base}' and '{variant}' have no task in common: {', '.join(ordered[BASE])} and {', '.join(of)}"
            )
        for task in of.keys() & ordered[BASE].keys():
            _refuse_unlike(ordered[BASE][task], of[task])
    return ordered


def _refuse_unlike(base: Log, other: Log) -> None:
    ours, theirs = base.prompts, other.prompts
    unlike = next((id for id in theirs if ours.get(id) != theirs[id]), None)
    if unlike is not None:
        found = "another prompt" if unlike in ours else "no such prompt"
        raise BadInputError(
            f"{base.path} and {other.path}: '{unlike}' is {found} in the first; expected the same prompts"
        )
    for what in ("kind", "max_new_tokens", "sampling", "version"):
        mine, its = getattr(base, what), getattr(other, what)
        if mine != its:
            raise BadInputError(f"{base.path} and {other.path} cannot be compared: {what} ({mine} and {its})")
    if len(theirs) < len(ours):
        say(
            f"{other.path} has {len(theirs)} of the {len(ours)} prompts of {base.path}: it is compared on these"
        )


def _facts(by_variant: Logs, tasks: Mapping[str, Log], judge: Judge) -> dict[str, Any]:
    """Return the run.json of the run."""
    first, now = next(iter(by_variant[BASE].values())), datetime.datetime.now(datetime.UTC)
    variants = {name: _variant(name, next(iter(of.values()))) for name, of in by_variant.items()}
    origins = {name: [log.origin() for log in of.values()] for name, of in by_variant.items()}
    for name, of in origins.items():
        variants[name]["from"] = of
    known = fingerprint(
        [variants, judge.fingerprint, {task: log.max_new_tokens for task, log in tasks.items()}]
    )
    kept: dict[str, Any] = {
        key: first.about[key]
        for key in ("seeds", "engine", "device", "clock", "thinking")
        if key in first.about
    }
    others = [name for name in by_variant if name != BASE]
    records = {
        AskedTask.read(task).name: log.about.get("task")
        or {"name": AskedTask.read(task).name, "version": log.version, "kind": log.kind}
        for task, log in tasks.items()
    }
    return {
        "seeds": {"splits": 0},
        "engine": "inspect_ai",
        **kept,
        "run_id": f"{now:%Y%m%d-%H%M%S}-{known[:6]}",
        "created": now.isoformat(timespec="seconds"),
        "command": shlex.join(["harness", *sys.argv[1:]]),
        "config": _config(first, others or [BASE], list(records), judge),
        "configuration": known,
        "model": first.about.get("model") or {"name": first.model, "path": "", **_UNKNOWN},
        "tasks": list(records.values()),
        "judges": {judge.name: judge_record(judge)},
        "versions": {**package_versions(), **first.about.get("versions", {})},
        "variants": variants,
        "asked": {
            task: log.about["asked"]
            if log.about
            else {"kind": log.kind, "max_new_tokens": log.max_new_tokens, "opening": ""}
            for task, log in tasks.items()
        },
        "sampling": first.sampling,
        "spelling_control_tokens": {},
        "control_tasks": [],
        "claim_prompts": {},
        "evaluated": {},
        "more_judges": [],
    }


def _config(first: Log, others: Sequence[str], tasks: Sequence[str], judge: Judge) -> dict[str, Any]:
    config = first.about.get("config") or make_config({"generation.answers": None}).model_dump(mode="json")
    model = {} if first.about else {"model": first.model, "variant": others[0]}
    return {
        **config,
        **model,
        "intervention": others[0],
        "baselines": [*others[1:]],
        "draws": 1,
        "tasks": [*tasks],
        "judge": judge.name,
        "card": None,
        "capability": {**config["capability"], "tasks": []},
    }


def _variant(name: str, log: Log) -> dict[str, Any]:
    if log.specification:
        return {**log.specification, "name": name}
    system = {} if log.system is None else {"system_prompt": log.system}
    description = f"{log.model}, asked by inspect_ai."
    return {
        "name": name,
        "description": description,
        "intervention": "none",
        "citation": None,
        **system,
        "draw": None,
    }


def _splits(tasks: Mapping[str, Log]) -> dict[str, Any]:
    splits: dict[str, Any] = {}
    for task, log in tasks.items():
        name, prompts = AskedTask.read(task).name, log.prompts
        made = {"fingerprint": fingerprint(sorted(prompts.items())), "ids": {"test": list(prompts)}}
        splits.setdefault(name, log.about.get("split") or {**made, "categories": {}, "pairs": {}})
    return splits
