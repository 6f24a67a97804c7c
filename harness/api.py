"""Runs from Python: make one, compare two models, open a finished one, and look at it in a notebook."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.files import at_home
from harness.config import RunConfig, make_config, nearest_settings, setting_names
from harness.data.task import AskedTask
from harness.report.cards import Card
from harness.report.conclusion import conclude
from harness.report.finding import Finding, find
from harness.report.html import render_finding
from harness.runs.listing import newest
from harness.runs.run import Run as RunFiles
from harness.runs.run import read_run

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.check import Checked
    from harness.runs.summary import Summary

ANSWER_COLUMNS = (
    *("id", "prompt", "response", "reasoning", "finish_reason", "prompt_tokens", "generated_tokens"),
    *("reasoning_tokens", "number"),
)
VERDICT_COLUMNS = ("id", "label", "rule", "reason", "probability", "finer", "number")
_OF_A_COMPARISON = ("model", "variant", "intervention", "baselines")
_FREE = "generation.chat_template_kwargs."


class Run:
    """A finished run: what it found, and its tables.

    A notebook shows its headline and cards. What was read is kept: open the folder again to see what has changed.

    Args:
        path: the run folder. Every file in it is checked against its manifest first, as `harness check` does.

    Attributes:
        path: the run folder.
        files: each file of the folder as typed objects: selection, training steps, proofs, drift, routing.

    Raises:
        BadInputError: it is not the folder of a finished run, or a file is not what the run wrote.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = at_home(Path(path))
        self.files: RunFiles = read_run(self.path)
        self.files.verify()

    def __repr__(self) -> str:
        return f"<Run {self.path}: {self.headline}>"

    def _repr_html_(self) -> str:
        return render_finding(self.path, self.summary)

    @property
    def summary(self) -> Summary:
        """summary.json."""
        return self.files.summary

    @cached_property
    def finding(self) -> Finding:
        """What the run found: headline, cards, claim, doubt, and the sentences that matter next."""
        return find(self.summary)

    @property
    def headline(self) -> str:
        """The answer in a sentence."""
        return self.finding.headline

    @property
    def cards(self) -> tuple[Card, ...]:
        """Harm, false refusal and capability: question, answer, change, interval."""
        return self.finding.cards

    @cached_property
    def conclusion(self) -> list[str]:
        """Every sentence that the run's figures allow, the most important first."""
        return conclude(self.summary)

    @cached_property
    def measurements(self) -> pd.DataFrame:
        """Every figure, one row per variant, task, metric and judge."""
        return self.files.measurements()

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Every paired test, one row each, with the columns of summary.json."""
        return self.files.comparisons()

    @cached_property
    def experts(self) -> pd.DataFrame:
        """The expert table, one row per phase, layer and expert (docs/selection.md has the columns).

        Raises:
            BadInputError: the run selected no experts.
        """
        return self.files.experts()

    @cached_property
    def answers(self) -> pd.DataFrame:
        """Every answer to a test prompt: variant, task, kind, and what responses/TASK.jsonl has of it."""
        rows = (
            [variant, task, kind, *(getattr(answer, name) for name in ANSWER_COLUMNS)]
            for variant, task, kind in self._answered()
            for answer in self.files.answers(variant, task)
        )
        return _table(rows, ("variant", "task", "kind", *ANSWER_COLUMNS))

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """Every verdict: variant, task, kind, judge, and what verdicts/TASK.JUDGE.jsonl has of it."""
        rows = (
            [variant, task, kind, judge, *(getattr(verdict, name) for name in VERDICT_COLUMNS)]
            for variant, task, kind in self._answered()
            for judge in self.files.judges(variant, task)
            for verdict in self.files.verdicts(variant, task, judge)
        )
        return _table(rows, ("variant", "task", "kind", "judge", *VERDICT_COLUMNS))

    def check(self, gates: Path | str, against: str | None = None) -> Checked:
        """Decide the gates of a file, as `harness check` does: `outcome`, `exit_code` and `decisions`.

        Args:
            gates: the gates file.
            against: a reference's name or file, or a run folder, for gates that compare with one.

        Raises:
            BadInputError: an input cannot be used.
        """
        from harness.gate.check import check

        return check(self.path, at_home(Path(gates)), against)

    def _answered(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield each variant of the summary with a task that it answered and the task's kind."""
        kinds = {task.name: task.kind for task in self.files.record.tasks}
        for variant in self.summary.variants:
            for task in self.files.answered(variant):
                name = AskedTask.read(task).name
                if name in kinds:
                    yield variant, task, kinds[name]


def open(path: Path | str | None = None) -> Run:
    """Open a finished run.

    Args:
        path: the run folder; the newest finished one below runs/ if None.

    Raises:
        BadInputError: it is not the folder of a finished run, or a file is not what the run wrote.
    """
    return Run(newest() if path is None else path)


def run(
    model: Path | str | None = None,
    *,
    output: Path | str | None = None,
    config: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **named: Any,
) -> Run:
    """Do what `harness run` does: the same run, in the same folder, with progress on stderr.

    Args:
        model: a checkpoint folder, a hub id, or demo, which is the default.
        output: the run folder; by default runs/MODEL-INTERVENTION-seedN. The same call resumes it.
        config: a YAML file with settings.
        settings: settings by dotted name, such as `{"training.max_steps": 8}`.
        quiet: show no progress.
        **named: settings by name, such as `limit=20`; a dict for a group, such as `training={"max_steps": 8}`.

    Raises:
        BadInputError: an input cannot be used; nothing was written.
        HarnessError: the run failed; what was finished is kept.
    """
    given = _given(settings, ({} if model is None else {"model": str(model)}) | named)
    return _made(["run"], given, given, output, config, quiet)


def compare(
    base: Path | str,
    variant: Path | str,
    *,
    output: Path | str | None = None,
    config: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
    **named: Any,
) -> Run:
    """Do what `harness compare` does: two models on the same prompts, or two finished runs' variants.

    Args:
        base: a model; or RUN@VARIANT, of a finished run.
        variant: another model, or the folder of a delta or adapter of `base`; or RUN@VARIANT.
        output: the run folder; by default one below runs/.
        config: a YAML file with settings.
        settings: settings by dotted name.
        quiet: show no progress.
        **named: settings by name, as for `run`.

    Raises:
        BadInputError: an input cannot be used; nothing was written.
        HarnessError: the run failed; what was finished is kept.
    """
    from harness.pipeline.compare_runs import (
        both_answered,
        compare_runs,
        default_output,
        settings_to_compare,
    )

    given = _given(settings, named)
    if taken := [name for name in _OF_A_COMPARISON if name in given]:
        raise BadInputError(f"compare: takes no '{taken[0]}': both models are its first two arguments")
    words = ["compare", str(base), str(variant)]
    sides = both_answered(str(base), str(variant))
    if sides is None:
        return _made(
            words, given, given | settings_to_compare(str(base), str(variant)), output, config, quiet
        )
    if given or config:
        raise BadInputError(
            "compare: two finished runs are compared as they were made: settings do not apply"
        )
    target = default_output(*sides) if output is None else at_home(Path(output))
    compare_runs(*sides, target, _command(words, {}, target, None))
    return Run(target)


def _made(
    words: list[str],
    asked: Mapping[str, Any],
    given: Mapping[str, Any],
    output: Path | str | None,
    config: Path | str | None,
    quiet: bool,
) -> Run:
    """Make a run of these settings; it records the command line that would make the same one."""
    from harness.models.load import quiet_transformers
    from harness.pipeline import pipeline
    from harness.pipeline.plan import make_plan

    quiet_transformers()
    file = None if config is None else at_home(Path(config))
    made = make_config(given, file)
    target = pipeline.default_output(made) if output is None else at_home(Path(output))
    command = _command(words, asked, None if output is None else target, file)
    session = pipeline.start(make_plan(made), target, command=command)
    pipeline.run(session, quiet=quiet)
    return Run(target)


def _given(settings: Mapping[str, Any] | None, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by dotted name.

    Raises:
        BadInputError: a name is unknown (the nearest are offered), or given twice.
    """
    known = setting_names()
    pairs = [*_flat(named, known), *_flat(settings or {}, known)]
    given = dict(pairs)
    for name, _ in pairs:
        if name not in known and not name.startswith(_FREE):
            hint = nearest_settings(name, known)
            raise BadInputError(f"unknown setting '{name}', {hint} Dotted names go into settings={{...}}.")
    if len(given) < len(pairs):
        raise BadInputError("a setting is given twice, by name and in settings")
    return given


def _flat(values: Mapping[str, Any], known: Iterable[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        is_group = name not in known and any(each.startswith(f"{name}.") for each in known)
        if is_group and isinstance(value, Mapping):
            yield from _flat(value, known, f"{name}.")
        else:
            yield name, value


def _command(words: list[str], given: Mapping[str, Any], output: Path | None, file: Path | None) -> str:
    """Return the command line that does the same, as run.json keeps it."""
    flags = {each.name: each.flags[0] for each in RunConfig.declared() if each.flags}
    line = ["harness", *words]
    for option, path in (("--config", file), ("--output", output)):
        line += [] if path is None else [option, str(path)]
    for name, value in given.items():
        is_plain = isinstance(value, (str, int, float, Path)) and not isinstance(value, bool)
        line += (
            [flags[name], str(value)]
            if is_plain and name in flags
            else ["--set", f"{name}={json.dumps(value, default=str)}"]
        )
    return shlex.join(line)


def _table(rows: Iterable[list[Any]], columns: Iterable[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(columns))
