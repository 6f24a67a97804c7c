"""Two variants that have answered already, of one finished run or of two, as a run that compares them prompt by prompt.

Nothing is asked and nothing is judged: answers, verdicts and scores are copied, and measured as those of any run are.
"""

from __future__ import annotations

import datetime
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, nearest
from harness.base.files import write_json
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.data.task import AskedTask
from harness.interventions.spec import BASE, compared, name_of
from harness.report.write import write_measured
from harness.runs.layout import Layout
from harness.runs.protocol import Protocol, protocols
from harness.runs.run import Run, read_run
from harness.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from harness.runs.summary import Summary

_SEPARATOR = "@"
# Under which the same weights may give other answers, though none of them is part of the protocol.
_SETTINGS, _PACKAGES = ("engine", "dtype", "batch_size"), ("torch", "transformers")


@dataclass(frozen=True)
class Answered:
    """A variant of a finished run.

    Attributes:
        run: the run.
        variant: its name there.
    """

    run: Run
    variant: str

    def __str__(self) -> str:
        return f"{self.run.path}{_SEPARATOR}{self.variant}"

    @classmethod
    def read(cls, text: str) -> Answered | None:
        """Read RUN@VARIANT; None of a text that names no run.

        Raises:
            BadInputError: the run is not finished or was changed, or has evaluated no such variant.
        """
        folder, separator, variant = text.rpartition(_SEPARATOR)
        path = Path(folder if separator else text).expanduser()
        if not Layout(path).is_run():
            return None
        run = read_run(path)
        if not separator:
            raise BadInputError(f"'{text}' is a run: name a variant of it, {text}{_SEPARATOR}{BASE}")
        if not run.is_finished:
            raise BadInputError(f"{path}: the run is not finished: it has no {run.layout.summary.name}")
        run.verify()
        if variant not in run.summary.variants:
            raise BadInputError(f"{path}: no variant '{variant}', {nearest(variant, run.summary.variants)}")
        skipped = run.summary.variants[variant].skipped
        if skipped is not None:
            raise BadInputError(f"{path}: variant '{variant}' was skipped: {skipped}")
        return cls(run, variant)

    @property
    def name(self) -> str:
        """Its name for a file or a row of a table, base's with the model's."""
        return name_of(self.run.model.name if self.variant == BASE else self.variant)

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """How it was asked the tasks that it has figures of."""
        asked = {row.task for row in self.run.summary.of(self.variant)}
        return {task: protocol for task, protocol in protocols(self.run).items() if task in asked}

    @property
    def record(self) -> dict[str, Any]:
        """Its specification, and where its answers are from."""
        spec = self.run.variants[self.variant]
        model = self.run.model
        return {
            **spec,
            "draw": None,
            "from": {"run": str(self.run.path.absolute()), "run_id": self.run.summary.run_id},
            "model": {"name": model.name, "fingerprint": model.fingerprint},
        }


def both_answered(base: str, variant: str) -> tuple[Answered, Answered] | None:
    """Read RUN@VARIANT twice; None of two models.

    Raises:
        BadInputError: one of the two is a model, or as `Answered.read`.
    """
    ours, theirs = Answered.read(base), Answered.read(variant)
    if ours is not None and theirs is not None:
        return ours, theirs
    if ours is None and theirs is None:
        return None
    raise BadInputError(
        f"'{ours or theirs}' has answered already, '{variant if ours else base}' is a model: expected two models, "
        "or RUN@VARIANT twice"
    )


def settings_to_compare(base: str, variant: str) -> dict[str, Any]:
    """Return the settings of a run that compares two models."""
    return {"model": base, "variant": variant, "intervention": compared(variant).name, "baselines": []}


def default_output(base: Answered, other: Answered) -> Path:
    """Return where the comparison is kept when `--output` names no folder."""
    return Path("runs") / f"{base.name}-vs-{other.name}"


def compare_runs(base: Answered, other: Answered, output: Path, command: str | None = None) -> Summary:
    """Write a run of two variants that were asked the same prompts in the same way.

    Args:
        base: what the other is compared with; it is called base in the new run.
        other: the other.
        output: a new or empty folder.
        command: the command line to record; that of this process by default.

    Raises:
        BadInputError: prompts, decoding or judge differ, they have no task in common, or the folder holds something.
    """
    if Layout(output).is_run():
        raise BadInputError(f"{output} holds a run already: name another --output")
    tasks = _common_tasks(base, other)
    name, folder = other.name, RunFolder(output)
    folder.describe(
        {**_facts(base, other, name, tasks), "command": command or shlex.join(["harness", *sys.argv[1:]])}
    )
    splits = base.run.splits.model_dump(mode="json")
    of_tasks = {AskedTask.read(task).name for task in tasks}
    splits["tasks"] = {task: split for task, split in splits["tasks"].items() if task in of_tasks}
    write_json(folder.layout.splits, splits)
    judge = base.run.summary.judge
    if (card := base.run.layout.card(judge)).is_file():
        _copy(card, folder.layout.card(judge))
    for side, called in ((base, BASE), (other, name)):
        ours, theirs = folder.layout.variant(called), side.run.layout.variant(side.variant)
        for task in (task for task in tasks if task in base.run.record.asked):
            _copy(theirs.responses(task), ours.responses(task))
            _copy(theirs.verdicts(task, judge), ours.verdicts(task, judge))
        if theirs.capability.is_file():
            scores = side.run.measured_capability(side.variant)
            shared = {task: result.row() for task, result in scores.items() if task in tasks}
            write_json(ours.capability, shared)
        if theirs.imported.is_file():
            write_json(ours.imported, side.run.imported(side.variant).only(tasks).model_dump(mode="json"))
        folder.note_evaluated(called, trained=False, tasks=_limited(side, tasks))
    return write_measured(folder)


def _common_tasks(base: Answered, other: Answered) -> list[str]:
    """Return the tasks that both were asked, the same in the same way."""
    tasks = [task for task in base.protocols if task in other.protocols]
    if not tasks:
        raise BadInputError(
            f"{base} and {other} have no task in common: {', '.join(base.protocols)} and {', '.join(other.protocols)}"
        )
    for task in tasks:
        ours, theirs = base.protocols[task], other.protocols[task]
        field = ours.differs_in(theirs)
        if field is not None:
            is_judge = field in ("judge", "judge_fingerprint")
            anew = "; `harness evaluate RUN` judges an earlier run anew" if is_judge else ""
            raise BadInputError(
                f"{base} and {other} cannot be compared on {task}: {ours.difference(theirs)}{anew}"
            )
    apart = base.protocols.keys() ^ other.protocols.keys()
    if apart:
        say(f"left out, since one of the two was not asked: {', '.join(sorted(apart))}")
    before, after = (_circumstances(side.run) for side in (base, other))
    for name, own in before.items():
        if own != after[name]:
            say(f"{name} differs, {own} and {after[name]}: part of a difference may come from that")
    return tasks


def _circumstances(run: Run) -> dict[str, Any]:
    return {
        **{name: run.summary.decoding.get(name) for name in _SETTINGS},
        "device": run.record.device,
        **{name: run.record.versions.get(name) for name in _PACKAGES},
    }


def _facts(base: Answered, other: Answered, name: str, tasks: list[str]) -> dict[str, Any]:
    """Return the run.json of the new run: that of base's run, with the two as its only variants."""
    content, now = base.run.content, datetime.datetime.now(datetime.UTC)
    asked = base.run.record.asked
    judge = base.run.summary.judge
    config = {
        **content["config"],
        **{"intervention": name, "variant": str(other), "baselines": [], "draws": 1},
        "tasks": list(dict.fromkeys(AskedTask.read(task).name for task in tasks if task in asked)),
        "capability": {
            **content["config"]["capability"],
            "tasks": [task for task in tasks if task not in asked],
        },
    }
    variants = {BASE: base.record | {"name": BASE}, name: other.record | {"name": name}}
    known = fingerprint([variants, base.run.summary.configuration, other.run.summary.configuration, tasks])
    kept = ("model", "seeds", "versions", "device", "engine", "clock")
    return {
        "run_id": f"{now:%Y%m%d-%H%M%S}-{known[:6]}",
        "created": now.isoformat(timespec="seconds"),
        "config": config,
        "configuration": known,
        **{key: content[key] for key in kept if key in content},
        "tasks": [row for row in content["tasks"] if row["name"] in config["tasks"]],
        "judges": {judge: content["judges"][judge]},
        "variants": variants,
        "asked": {task: content["asked"][task] for task in tasks if task in asked},
        "spelling_control_tokens": _of(content.get("spelling_control_tokens", {}), tasks),
        "control_tasks": [],
        "claim_prompts": {},
        "evaluated": {},
        "more_judges": [],
    }


def _of(by_task: Mapping[str, Any], tasks: list[str]) -> dict[str, Any]:
    return {task: value for task, value in by_task.items() if AskedTask.read(task).name in tasks}


def _limited(side: Answered, tasks: list[str]) -> list[str] | None:
    """Return the prompt tasks of a variant that answered the prompts of a claim and nothing else."""
    evaluated = side.run.record.evaluated[side.variant]
    return None if evaluated.tasks is None else [task for task in evaluated.tasks if task in tasks]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
