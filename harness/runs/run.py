"""A run folder as Python objects.

Opening a folder reads nothing; each file is read when it is first asked for, checked, and kept. Open the folder again
to see what has changed since.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness.base.errors import BadInputError, first_line, nearest
from harness.base.schema import read_json_as, read_jsonl_as, validated
from harness.capability.results import CapabilityResult
from harness.data.answer import Answer
from harness.judges.base import Verdict
from harness.metrics.drift import Drift
from harness.runs import integrity, records
from harness.runs.capability import figure_of
from harness.runs.earlier import with_direction
from harness.runs.integrity import MadeAnewError
from harness.runs.layout import Layout
from harness.runs.rows import Comparison, Measurement, Part

if TYPE_CHECKING:
    import pandas as pd

    from harness.routing.counts import RoutingCounts
    from harness.routing.tokens import RoutedTokens
    from harness.runs.summary import Summary

T = TypeVar("T")

EXPERT_COLUMNS = ("phase", "layer", "expert", "risk_diff")
MEASUREMENT_COLUMNS = [
    "variant",
    "task",
    "kind",
    "metric",
    "judge",
    "value",
    "low",
    "high",
    "n",
    "scored",
    "unscored",
]


def read_run(path: Path | str) -> Run:
    """Open a run folder for reading, finished or not.

    Raises:
        BadInputError: the folder is not that of a run, or its run.json cannot be read.
    """
    run = Run(path)
    if not run.layout.is_run():
        raise BadInputError(f"{run.path} is not the folder of a run: it has no {run.layout.run.name}")
    if run.layout.run.exists():
        _ = run.record
    return run


class Run:
    """A run folder, read file by file as it is asked for.

    A file that is there and cannot be used raises a BadInputError of one line, from whatever reads it.

    Args:
        path: the folder; it is not looked at yet (`read_run` does).
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.layout = Layout(self.path)
        self._kept: dict[Hashable, Any] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def content(self) -> dict[str, Any]:
        """run.json as it is.

        Raises:
            BadInputError: it is missing, or not a JSON object.
        """
        content = self._required(self.layout.run, object)
        if not isinstance(content, dict):
            found = "a list" if isinstance(content, list) else repr(content)
            raise BadInputError(
                f"{self.layout.run}: not the run.json of a run: expected an object, found {found}"
            )
        return content

    @cached_property
    def record(self) -> records.RunRecord:
        """run.json: configuration, model, tasks, seeds, versions, variants, stages."""
        return validated(self.content, self.layout.run, records.RunRecord)

    @property
    def model(self) -> records.ModelRecord:
        """The model that all variants start from.

        Raises:
            BadInputError: run.json does not say.
        """
        if self.record.model is None:
            raise BadInputError(f"{self.layout.run}: model: missing")
        return self.record.model

    @property
    def compares_models(self) -> bool:
        """Whether it compares two models (`harness compare`), and no intervention was made in it."""
        return self.record.config.get("variant") is not None

    @cached_property
    def splits(self) -> records.SplitsRecord:
        """The ids of the prompts of each task and role."""
        return self._required(self.layout.splits, records.SplitsRecord)

    @cached_property
    def summary(self) -> Summary:
        """summary.json.

        Raises:
            BadInputError: the run is not finished.
        """
        from harness.runs.summary import read_summary

        return read_summary(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether the run came to its end: it has a summary, and a manifest of its files."""
        return self.layout.summary.is_file() and self.layout.manifest.is_file()

    @property
    def is_evaluated(self) -> bool:
        """Whether the evaluation of every variant has ended; of runs that did not record it, it has."""
        record = self.record
        return record.configuration is None or record.variants.keys() <= record.evaluated.keys()

    def verify(self, *files: Path) -> dict[str, integrity.FileRecord]:
        """Compare files with the manifest; without any, the whole folder.

        Returns:
            What the manifest lists, by the file's name in the folder.

        Raises:
            MadeAnewError: the run was started again after its summary was made, which is not of its settings.
            BadInputError: the run is not finished, or a file is not what the run wrote.
        """
        recorded = self.layout.run.is_file() and self.record.configuration is not None
        if recorded and self.layout.summary.is_file() and not self.is_evaluated:
            raise MadeAnewError(self.path)
        if files:
            names = (file.relative_to(self.path).as_posix() for file in files)
            listed = integrity.verify_files(self.path, names)
        else:
            listed = integrity.verify_run(self.path)
        is_measured = recorded and self.layout.summary.is_file()
        if is_measured and self.summary.configuration != self.record.configuration:
            raise MadeAnewError(self.path)
        return listed

    @cached_property
    def variants(self) -> dict[str, dict[str, Any]]:
        """Each variant's specification by its name; an empty one in older runs, which did not record it."""
        if self.record.variants:
            return dict(self.record.variants)
        if self.layout.summary.is_file():
            return {name: {} for name in self.summary.variants}
        folders = (path for path in self.layout.variants.glob("[!.]*") if path.is_dir())
        # base, which the others are compared with, comes first.
        return {name: {} for name in sorted((path.name for path in folders), key=lambda n: (n != "base", n))}

    def measurements(self) -> pd.DataFrame:
        """Return every figure of the summary, one row per variant, task, metric and judge.

        Columns: variant, task, kind, metric, judge, value, low, high, n, scored, unscored.
        """
        return _table(self.summary.measurements, MEASUREMENT_COLUMNS)

    def comparisons(self) -> pd.DataFrame:
        """Return every paired test of the summary, one row each, with the columns of summary.json."""
        return _table(self.summary.comparisons, list(Comparison.model_fields))

    def answered(self, variant: str) -> list[str]:
        """Return the tasks that a variant has answers to, sorted."""
        return self.layout.variant(variant).answered()

    def answers(self, variant: str, task: str) -> list[Answer]:
        """Return a variant's answers to a task's test prompts, in the order they were asked.

        Raises:
            BadInputError: the run has none.
        """
        path = self.layout.variant(variant).responses(task)
        if not path.is_file():
            raise self._unknown(
                f"no answers of '{variant}' to '{task}'", variant, task, self.answered(variant)
            )
        return self._rows(path, Answer)

    def judges(self, variant: str, task: str) -> list[str]:
        """Return the judges that gave verdicts on a variant's answers to a task, sorted."""
        return self.layout.variant(variant).judges(task)

    def verdicts(self, variant: str, task: str, judge: str | None = None) -> list[Verdict]:
        """Return a judge's verdicts on a variant's answers to a task.

        Args:
            variant: whose answers.
            task: what was asked.
            judge: who judged; the run's primary judge if None.

        Raises:
            BadInputError: the run has none.
        """
        judge = judge or self.record.judge
        if judge is None:
            raise BadInputError(f"{self.layout.run}: config.judge: missing")
        path = self.layout.variant(variant).verdicts(task, judge)
        if not path.is_file():
            judges = self.judges(variant, task)
            name, known = (judge, judges) if judges else (task, self.answered(variant))
            what = f"no verdicts of '{judge}' on the answers of '{variant}' to '{task}'"
            raise self._unknown(what, variant, name, known)
        return self._rows(path, Verdict)

    def selection(self, variant: str) -> records.Selection | None:
        """Return the experts that a variant acts on; None where it acts on no chosen ones."""
        return self._optional(self.layout.variant(variant).selection, records.Selection)

    def training(self, variant: str) -> list[records.TrainingStep]:
        """Return the loss of each training step; empty where nothing was trained."""
        path = self.layout.variant(variant).training
        return self._rows(path, records.TrainingStep) if path.exists() else []

    def proof(self, variant: str) -> records.Proof | None:
        """Return the frozen proof of a variant; None where nothing was trained."""
        return self._optional(self.layout.variant(variant).proof, records.Proof)

    def delta(self, variant: str) -> records.DeltaRecord:
        """Return what was trained in a variant.

        Raises:
            BadInputError: nothing was.
        """
        files = self.layout.variant(variant)
        card = files.adapter_card if files.adapter_card.is_file() else files.delta_card
        return self._required(card, records.DeltaRecord)

    def phrasings(self) -> records.PhrasingsRecord:
        """Return the phrasings of refusal that trained variants saw, and those that were held out.

        Raises:
            BadInputError: the run trained nothing.
        """
        return self._required(self.layout.phrasings, records.PhrasingsRecord)

    def drift(self, variant: str) -> Drift | None:
        """Return how far a variant is from base on benign text; None where that was not measured."""
        return self._optional(self.layout.variant(variant).drift, Drift)

    def routes(self, variant: str) -> records.RoutesRecord | None:
        """Return how far a variant's routes are from base's; None where that was not measured."""
        return self._optional(self.layout.variant(variant).routes, records.RoutesRecord)

    def carry(self, variant: str) -> records.CarryRecord | None:
        """Return refusal while a variant's trained experts are put back; None without `harness experts carry`."""
        return self._optional(self.layout.variant(variant).carry, records.CarryRecord)

    def capability(self, variant: str) -> dict[str, CapabilityResult]:
        """Return lm-eval's result of each capability task, with a score per item; empty where none was asked.

        Those that were imported come after those that the run measured.
        """
        return {**self.measured_capability(variant), **self.imported(variant).tasks}

    def measured_capability(self, variant: str) -> dict[str, CapabilityResult]:
        """Return the same of the tasks that the run itself measured."""
        path = self.layout.variant(variant).capability
        return self._once(path, lambda: _read_capability(path) if path.exists() else {})

    def imported(self, variant: str) -> records.ImportedRecord:
        """Return what lm-eval measured elsewhere; empty where nothing was imported."""
        path = self.layout.variant(variant).imported
        return self._optional(path, records.ImportedRecord) or records.ImportedRecord()

    def experts(self) -> pd.DataFrame:
        """Return the expert table, one row per phase, layer and expert (docs/selection.md has the columns).

        Raises:
            BadInputError: the run has selected no experts yet.
        """
        path = self.layout.experts
        if not path.is_file():
            raise BadInputError(
                f"{self.path} has no {path.name}: select experts first, with `harness select --output {self.path}`"
            )
        return self._once(path, lambda: _read_experts(path)).copy()

    @cached_property
    def captured(self) -> dict[str, Path]:
        """The file of routing counts of each task that has one."""
        known = {task.name for task in self.record.tasks}
        return {path.stem: path for path in self.layout.captured() if path.stem in known}

    def routing(self, task: str) -> RoutingCounts:
        """Return the routing counts of a task's identify prompts.

        Raises:
            BadInputError: the run captured none.
        """
        from harness.routing.files import load_counts

        return load_counts(self._captured(task))

    def test_routing(self, task: str) -> RoutingCounts | None:
        """Return the routing counts of base's answers to a task's test prompts; None where they were not captured."""
        from harness.routing.files import load_counts

        path = self.layout.test_routing(task)
        return load_counts(path) if path.is_file() else None

    def tokens(self, task: str, with_logits: bool = False) -> RoutedTokens:
        """Return the experts and gate weights of single tokens, of a run made with `--record tokens`.

        Raises:
            BadInputError: the run did not record them.
        """
        from harness.routing.files import load_tokens

        return load_tokens(self._captured(task), with_logits=with_logits)

    def captured_answers(self, task: str) -> list[Answer]:
        """Return the answers given while routing was captured."""
        return self._rows(self.layout.captured_answers(task), Answer)

    def token_shares(self) -> list[records.ColouredTokens]:
        """Return a few prompts, token by token, with the share of gate weight to selected experts, where recorded."""
        return self._optional(self.layout.token_shares, list[records.ColouredTokens]) or []

    def examples(self) -> list[records.TrainingExample] | None:
        """Return what trained variants learned from; None where nothing was trained."""
        path = self.layout.examples
        return self._rows(path, records.TrainingExample) if path.exists() else None

    def _captured(self, task: str) -> Path:
        if task not in self.captured:
            raise BadInputError(
                f"{self.path}: no routing of '{task}' was captured, {nearest(task, self.captured)}"
            )
        return self.captured[task]

    def _unknown(self, what: str, variant: str, name: str, known: Iterable[str]) -> BadInputError:
        has_variant = self.layout.variant(variant).folder.is_dir()
        hint = nearest(name, known) if has_variant else nearest(variant, self.variants)
        return BadInputError(f"{self.path}: {what}, {hint}")

    def _required(self, path: Path, shape: type[T]) -> T:
        if not path.is_file():
            raise BadInputError(f"{path}: no such file; expected the folder of a run")
        return read_json_as(path, shape)

    def _optional(self, path: Path, shape: type[T]) -> T | None:
        return self._once(path, lambda: read_json_as(path, shape) if path.exists() else None)

    def _rows(self, path: Path, row: type[T]) -> list[T]:
        return list(self._once(path, lambda: read_jsonl_as(path, row)))

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returned when this key was first asked for."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept


def _table(rows: Sequence[Part], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([row.model_dump(mode="json") for row in rows], columns=list(columns))


def _read_capability(path: Path) -> dict[str, CapabilityResult]:
    content = read_json_as(path, dict[str, dict[str, Any]])
    completed = {task: with_direction(figure) for task, figure in content.items()}
    results = validated(completed, path, dict[str, CapabilityResult])
    for task, result in results.items():
        validated(figure_of(result, path.parent.name, task), f"{path}: {task}", Measurement)
    return results


def _read_experts(path: Path) -> pd.DataFrame:
    import pandas as pd
    from pyarrow import ArrowInvalid

    try:
        table = pd.read_parquet(path)
    except (ArrowInvalid, OSError) as error:
        raise BadInputError(f"{path}: not a Parquet file ({first_line(error)})") from None
    absent = [column for column in EXPERT_COLUMNS if column not in table.columns]
    if absent:
        raise BadInputError(f"{path}: no column {absent[0]}; found {', '.join(map(str, table.columns))}")
    return table
