"""Results that lm-eval saved: results_TIME.json (`--output_path`), with samples beside it (`--log_samples`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from harness.base.errors import BadInputError
from harness.base.files import read_json, read_jsonl, sha256
from harness.base.schema import validated
from harness.capability.results import CapabilityResult, capability_result, rate_alone
from harness.capability.scoring import Scoring

_TIME = re.compile(r"_(\d{4}-\d\d-\d\dT[\d.-]+)$")
_MEANS = ("mean", "nanmean")


class Origin(BaseModel):
    """Where the figure of a task is from, and how lm-eval asked its items."""

    model_config = ConfigDict(frozen=True)

    file: str
    sha256: str
    model: str
    """As it was named to lm-eval."""
    lm_eval: str
    """Its version."""
    transformers: str | None = None
    task_version: str | None = None
    """As the task's file has it."""
    num_fewshot: int | None = None
    chat_template: bool = False
    """Whether items were sent as chat messages."""
    limit: float | None = None
    n: int = 0
    """How many items were asked."""
    with_samples: bool = True

    def difference(self, other: Origin) -> str | None:
        """Return in words what differs first in how items were asked, or None."""
        for name in ("task_version", "num_fewshot", "chat_template", "limit", "n"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return f"{name} ({ours} and {theirs})"
        return None


class _Saved(BaseModel):
    """The parts of lm-eval's file that are read."""

    results: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]
    config: dict[str, Any]
    groups: dict[str, dict[str, Any]] = Field(default_factory=dict)
    group_subtasks: dict[str, list[str]] = Field(default_factory=dict)
    higher_is_better: dict[str, dict[str, bool | None]] = Field(default_factory=dict)
    versions: dict[str, Any] = Field(default_factory=dict)
    n_shot: dict[str, int] = Field(default_factory=dict, alias="n-shot")
    n_samples: dict[str, dict[str, int]] = Field(default_factory=dict, alias="n-samples")
    chat_template: str | None = None
    lm_eval_version: str = "unknown"
    transformers_version: str | None = None
    model_name: str | None = None


@dataclass(frozen=True)
class SavedResults:
    """One run of lm-eval.

    Attributes:
        path: its file of results.
        model: as it was named to lm-eval.
        tasks: the figure of each task or group, with a score per item where samples were logged.
        origins: of each.
    """

    path: Path
    model: str
    tasks: dict[str, CapabilityResult]
    origins: dict[str, Origin]


def is_saved_results(path: Path) -> bool:
    """Say whether a file is called and looks like lm-eval's results; it may still be broken."""
    if path.suffix != ".json" or not path.is_file():
        return False
    content = read_json(path)
    return isinstance(content, dict) and {"results", "configs"} <= content.keys()


def read_saved_results(path: Path) -> SavedResults:
    """Read what lm-eval saved.

    Raises:
        BadInputError: it is no file of lm-eval's results, or samples do not belong to it.
    """
    saved = validated(read_json(path), path, _Saved)
    if not saved.results:
        raise BadInputError(f"{path}: results: expected at least one task, found none")
    model = saved.model_name or str(saved.config.get("model") or "unknown")
    known, digest = dict(_samples(path, saved)), sha256(path)
    tasks, origins = {}, {}
    for name in _figures(saved):
        leaves = list(_leaves(name, saved))
        n = sum(saved.n_samples.get(leaf, {}).get("effective", 0) for leaf in leaves)
        content = {**saved.model_dump(), "samples": known}
        has_samples = all(leaf in known for leaf in leaves)
        if has_samples:
            result = capability_result(name, content, _scoring(saved, leaves))
            if n and result.n != n:
                raise BadInputError(f"{path}: {name}: {result.n} samples are beside it, expected {n}")
        else:
            result = rate_alone(name, content, _scoring(saved, leaves), n)
        tasks[name] = result
        version = saved.versions.get(name)
        origins[name] = Origin(
            file=str(path.absolute()),
            sha256=digest,
            model=model,
            lm_eval=saved.lm_eval_version,
            transformers=saved.transformers_version,
            task_version=None if version is None else str(version),
            num_fewshot=next((saved.n_shot[leaf] for leaf in leaves if leaf in saved.n_shot), None),
            chat_template=bool(saved.chat_template),
            limit=saved.config.get("limit"),
            n=result.n,
            with_samples=has_samples,
        )
    if not tasks:
        raise BadInputError(f"{path}: results: no task or group has a figure")
    return SavedResults(path, model, tasks, origins)


def _samples(path: Path, saved: _Saved) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    time = _TIME.search(path.stem)
    for task in saved.configs:
        file = path.with_name(f"samples_{task}_{time[1]}.jsonl") if time else None
        if file is not None and file.is_file():
            rows = read_jsonl(file)
            for number, row in enumerate(rows, start=1):
                if not {"doc", "doc_id", "filter", "filtered_resps"} <= row.keys():
                    raise BadInputError(
                        f"{file}: row {number}: not a sample of lm-eval: expected doc, doc_id, filter, filtered_resps"
                    )
            yield task, rows


def _figures(saved: _Saved) -> list[str]:
    """Return the groups that have a figure, and the tasks in none of them."""
    groups = [name for name, figures in saved.groups.items() if _has_figure(figures)]
    inside = {leaf for group in groups for leaf in _below(group, saved)}
    names = dict.fromkeys(name for name in (*groups, *saved.results) if name not in inside)
    return [name for name in names if name in groups or _has_figure(saved.results[name])]


def _has_figure(figures: Mapping[str, Any]) -> bool:
    return any("," in key for key in figures)


def _below(name: str, saved: _Saved) -> Iterator[str]:
    for child in saved.group_subtasks.get(name) or ():
        yield child
        yield from _below(child, saved)


def _leaves(name: str, saved: _Saved) -> Iterator[str]:
    children = saved.group_subtasks.get(name) or ()
    if not children:
        yield name
    for child in children:
        yield from _leaves(child, saved)


def _scoring(saved: _Saved, leaves: list[str]) -> Scoring:
    """Return how the tasks are scored, as far as the file says; whether a figure is a mean, arithmetic says too."""
    entries = [entry for leaf in leaves for entry in saved.configs.get(leaf, {}).get("metric_list") or ()]
    names = [str(entry["metric"]) for entry in entries]
    given: dict[str, set[bool | None]] = {}
    for leaf in leaves:
        for metric, better in saved.higher_is_better.get(leaf, {}).items():
            given.setdefault(metric, set()).add(better)
    directions = {
        metric: better
        for metric, found in given.items()
        if len(found) == 1 and (better := next(iter(found))) is not None
    }
    otherwise = {str(each["metric"]) for each in entries if each.get("aggregation", "mean") not in _MEANS}
    return Scoring(list(dict.fromkeys(names)), directions, frozenset(otherwise))
