"""Results of lm-eval that was run elsewhere, as the capability of a finished run's variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError, nearest
from harness.base.files import write_json
from harness.base.progress import say
from harness.capability.saved import SavedResults, is_saved_results, read_saved_results
from harness.report.write import write_measured
from harness.runs.layout import Layout
from harness.runs.records import ImportedRecord
from harness.runs.rows import BASE
from harness.runs.run import Run, read_run
from harness.runs.run_folder import RunFolder
from harness.runs.upgrade import upgrade

if TYPE_CHECKING:
    from harness.runs.summary import Summary


def are_saved_results(texts: Sequence[str]) -> bool:
    """Say whether arguments, `FILE` or `NAME=FILE`, name files of lm-eval's results.

    Raises:
        BadInputError: some do and some do not.
    """
    kinds = {is_saved_results(_split(text)[1]): text for text in texts}
    if len(kinds) > 1:
        raise BadInputError(
            f"{kinds[True]} holds results of lm-eval, {kinds[False]} does not: import them one after another"
        )
    return kinds.keys() == {True}


def import_capability(texts: Sequence[str], folder: Path) -> Summary:
    """Give variants of a finished run the figures of lm-eval that are in files; the run is measured again.

    Figures without samples are shown, and not compared. They are named, and so are models and versions that are others
    than the run's.

    Args:
        texts: `NAME=results_TIME.json`, NAME a variant; the file alone where it is of the run's own model.
        folder: the run.

    Raises:
        BadInputError: the run is not finished, has no such variant or measured one of the tasks itself, a file cannot
            be read, or two variants were asked a task otherwise. Nothing was written then.
    """
    if not Layout(folder).is_run():
        raise BadInputError(
            f"{folder} is no run: results of lm-eval become the capability of a run's variants, expected --output with "
            "the folder of a finished run"
        )
    run = read_run(folder)
    if not run.is_finished:
        raise BadInputError(f"{folder}: the run is not finished: it has no {run.layout.summary.name}")
    run.verify()
    made = {name: run.imported(name) for name in run.summary.variants}
    remarks: list[str] = []
    for text in texts:
        name, saved = _named(run, text)
        _refuse_own(run, saved)
        remarks += _what_differs(run, name, saved)
        before, asked = made[name], set(run.record.asked)
        kept = [task for task in saved.tasks if task not in asked]
        if left_out := [task for task in saved.tasks if task in asked]:
            remarks.append(
                f"{saved.path}: {', '.join(left_out)}: left out, since the run has its own answers to these prompts"
            )
        new = ImportedRecord(tasks=saved.tasks, origins=saved.origins).only(kept)
        made[name] = ImportedRecord(
            tasks={**before.tasks, **new.tasks}, origins={**before.origins, **new.origins}
        )
    remarks += _versions_apart(made)
    for remark in remarks:
        say(remark)
    writer = RunFolder(folder)
    upgrade(writer)
    for name, record in made.items():
        if record.tasks:
            write_json(writer.layout.variant(name).imported, record.model_dump(mode="json"))
    return write_measured(writer)


def _split(text: str) -> tuple[str | None, Path]:
    name, equals, path = text.partition("=")
    if Path(text).is_file() or not equals:
        return None, Path(text)
    return name, Path(path)


def _named(run: Run, text: str) -> tuple[str, SavedResults]:
    name, path = _split(text)
    saved = read_saved_results(path)
    variants = run.summary.variants
    if name is None:
        if _last(saved.model) not in (_last(run.model.name), _last(run.model.path)):
            raise BadInputError(
                f"{path} is of {saved.model}, the run's model is {run.model.name}: name the variant, as in "
                f"{next(reversed(variants))}={path}"
            )
        name = BASE
    if name not in variants:
        raise BadInputError(f"{text}: {run.path} has no variant '{name}', {nearest(name, variants)}")
    if (skipped := variants[name].skipped) is not None:
        raise BadInputError(f"{text}: variant '{name}' was skipped: {skipped}")
    return name, saved


def _last(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]


def _refuse_own(run: Run, saved: SavedResults) -> None:
    """Refuse a task that the run itself measured on any variant: it asked the items in its own way."""
    for name in run.summary.variants:
        for task in saved.tasks:
            if task in run.measured_capability(name):
                raise BadInputError(
                    f"{saved.path}: the run measured '{task}' itself, on '{name}': expected other tasks, or a run "
                    "without it"
                )


def _what_differs(run: Run, name: str, saved: SavedResults) -> Iterator[str]:
    """Yield what a reader must know of a file: other models and versions than the run's, and what cannot be paired."""
    if name == BASE and _last(saved.model) not in (_last(run.model.name), _last(run.model.path)):
        yield f"{saved.path} is of {saved.model}, the run's base is {run.model.name}: taken as the same on your word"
    elif name != BASE:
        yield f"{saved.path} is of {saved.model}: taken as '{name}' on your word, since its weights are not looked at"
    origin = next(iter(saved.origins.values()))
    for package, found in (("lm-eval", origin.lm_eval), ("transformers", origin.transformers)):
        ours = run.record.versions.get(package)
        if ours != found:
            yield f"{saved.path} was made with {package} {found}, the run with {ours}"
    for task, each in saved.origins.items():
        if not each.with_samples:
            yield (
                f"{saved.path}: {task} has no samples beside it (lm_eval --log_samples): its rate is shown, and not "
                "paired with another's"
            )


def _versions_apart(made: Mapping[str, ImportedRecord]) -> list[str]:
    """Return where other versions of lm-eval asked two variants a task.

    Raises:
        BadInputError: two variants were asked a task otherwise, or other items.
    """
    first: dict[str, str] = {}
    remarks = []
    for name, record in made.items():
        for task, origin in record.origins.items():
            other = first.setdefault(task, name)
            known = made[other].origins[task]
            if (difference := known.difference(origin)) is not None:
                raise BadInputError(
                    f"{known.file} and {origin.file}: '{other}' and '{name}' cannot be compared on {task}: {difference}"
                )
            if known.lm_eval != origin.lm_eval:
                remarks.append(f"{task}: '{other}' by lm-eval {known.lm_eval}, '{name}' by {origin.lm_eval}")
            ours, theirs = made[other].tasks[task].items, record.tasks[task].items
            if ours and theirs and ours.keys() != theirs.keys():
                odd = min(ours.keys() ^ theirs.keys())
                raise BadInputError(
                    f"{known.file} and {origin.file}: item '{odd}' of {task} is in one of them: expected the same items"
                )
    return remarks
