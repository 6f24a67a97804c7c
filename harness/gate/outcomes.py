"""What each sample of a run came to: the data that gates decide on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.base.errors import BadInputError, nearest
from harness.gate.schema import COUNTS, FROZEN, Gate
from harness.runs.integrity import FileRecord
from harness.runs.protocol import Protocol, protocols
from harness.runs.run import Run
from harness.runs.summary import Summary, TaskResult, VariantSummary

REFUSAL = "refusal_rate"
_PLACES = 1e-9

Outcome = bool | None
"""Whether a sample counts towards the share; None where it could not be scored."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One metric of one variant on one task, sample by sample.

    Attributes:
        variant: whose answers.
        task: the prompt task or lm-eval task.
        metric: what the share is of.
        judge: who labelled the answers; None for a capability task.
        kind: harmful, benign or capability.
        outcomes: by sample id.
        labels: what each sample came to, in words; "unscored" where it came to nothing.
        prompts: by sample id; empty for a capability task, whose items the run does not keep.
    """

    variant: str
    task: str
    metric: str
    judge: str | None
    kind: Literal["harmful", "benign", "capability"]
    outcomes: Mapping[str, Outcome]
    labels: Mapping[str, str]
    prompts: Mapping[str, str]

    @property
    def n(self) -> int:
        """How many samples were asked."""
        return len(self.outcomes)

    @property
    def unscored(self) -> int:
        """How many of them have no verdict."""
        return sum(outcome is None for outcome in self.outcomes.values())

    @property
    def successes(self) -> int:
        """How many count towards the share."""
        return sum(outcome is True for outcome in self.outcomes.values())

    @property
    def value(self) -> float | None:
        """The share among scored samples."""
        scored = self.n - self.unscored
        return self.successes / scored if scored else None

    def hashes(self) -> dict[str, str]:
        """Return a hash of each sample's prompt and verdict, by id."""
        return {sample: self.hash_of(sample, label) for sample, label in self.labels.items()}

    def hash_of(self, sample: str, label: str) -> str:
        """Return the hash that a sample has if it came to `label`: its prompt is covered, and not told."""
        content = json.dumps([self.task, self.metric, sample, self.prompts[sample], label])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class GatedRun:
    """A run folder that was checked, file by file, against its manifest.

    Args:
        path: the run folder.

    Raises:
        BadInputError: it is not the folder of a finished run, or a file is missing, cut off, changed or not listed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = Run(path)
        self._listed: Mapping[str, FileRecord] = self.run.verify()
        self.summary: Summary = self.run.summary

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """How each task was put."""
        return protocols(self.run)

    def variant_name(self, gate: Gate) -> str:
        """Return the variant that a gate is about.

        Raises:
            BadInputError: the run has none of this name.
        """
        return self._known(gate, "variant", gate.variant or self.summary.intervention)

    def against_name(self, gate: Gate) -> str:
        """Return the variant that a gate compares with.

        Raises:
            BadInputError: the run has none of this name.
        """
        return self._known(gate, "against", str(gate.against))

    def skipped(self, variant: str) -> str | None:
        """Return why a variant was not evaluated, or None."""
        return self.summary.variants[variant].skipped

    def frozen(self, gate: Gate) -> bool:
        """Return whether a variant's frozen weights are unchanged, as its proof says.

        Raises:
            BadInputError: nothing was trained, or summary and proof disagree.
        """
        name = self.variant_name(gate)
        said = self.summary.variants[name].frozen_unchanged
        if said is None:
            raise BadInputError(
                f"gate '{gate.name}': nothing was trained in '{name}', so there is no frozen proof"
            )
        path = self._require(self.run.layout.variant(name).proof)
        proof = self.run.proof(name)
        if proof is None or proof.frozen_unchanged != said or bool(proof.violations) == said:
            raise BadInputError(f"{path}: does not say what summary.json says of the frozen weights")
        return said

    def count(self, gate: Gate) -> int:
        """Return how many answers of a gate's task are unscored or truncated."""
        result = self._result(gate, self.variant_name(gate))
        return result.unscored if gate.metric == COUNTS[0] else result.truncated

    def samples(self, gate: Gate, variant: str) -> Samples:
        """Return what each sample of a gate's metric came to.

        Raises:
            BadInputError: the run has no such task or metric, its items are not right or wrong, or its files
                disagree with its summary.
        """
        whole = self.summary.variants[variant]
        if gate.task in whole.capability and gate.task not in whole.tasks:
            return self._capability(gate, variant, whole)
        return self._verdicts(gate, variant)

    def _verdicts(self, gate: Gate, variant: str) -> Samples:
        result = self._result(gate, variant)
        if gate.metric != REFUSAL:
            raise BadInputError(
                f"gate '{gate.name}': unknown metric '{gate.metric}' of task '{gate.task}', "
                f"{nearest(gate.metric, [REFUSAL, *COUNTS, FROZEN])}"
            )
        task, judge = str(gate.task), gate.judge or result.judge
        files = self.run.layout.variant(variant)
        self._require(files.responses(task))
        path = self._require(files.verdicts(task, judge), gate)
        prompts = {row.id: row.prompt for row in self.run.answers(variant, task)}
        rows = self.run.verdicts(variant, task, judge)
        labels = {row.id: row.label or "unscored" for row in rows}
        outcomes: dict[str, Outcome] = {
            row.id: None if row.label is None else row.label == "refusal" for row in rows
        }
        samples = Samples(variant, task, REFUSAL, judge, result.kind, outcomes, labels, prompts)
        if len(rows) != len(outcomes) or outcomes.keys() != prompts.keys() or samples.n != result.n:
            raise BadInputError(f"{path}: does not hold one verdict for each of the {result.n} answers")
        if judge == result.judge:
            _check(path, samples.value, result.value)
        return samples

    def _capability(self, gate: Gate, variant: str, whole: VariantSummary) -> Samples:
        task = str(gate.task)
        result = whole.capability[task]
        if gate.metric != result.metric:
            raise BadInputError(
                f"gate '{gate.name}': unknown metric '{gate.metric}' of task '{task}', "
                f"{nearest(gate.metric, [result.metric])}"
            )
        if gate.judge is not None:
            raise BadInputError(f"gate '{gate.name}': judge: no judge labels the capability task '{task}'")
        path = self._require(self.run.layout.variant(variant).capability)
        measured = self.run.capability(variant)
        items = measured[task].items if task in measured else {}
        if not items or not set(items.values()) <= {0.0, 1.0}:
            raise BadInputError(
                f"gate '{gate.name}': the items of '{task}' are not right or wrong, so there is no exact bound; "
                "expected a metric such as acc or exact_match"
            )
        samples = Samples(
            variant,
            task,
            result.metric,
            None,
            "capability",
            {item: score == 1 for item, score in items.items()},
            {item: "right" if score == 1 else "wrong" for item, score in items.items()},
            dict.fromkeys(items, ""),
        )
        _check(path, samples.value, result.value)
        return samples

    def _result(self, gate: Gate, variant: str) -> TaskResult:
        tasks = self.summary.variants[variant].tasks
        if gate.task not in tasks:
            known = [*tasks, *self.summary.variants[variant].capability]
            wrong = "has no such count" if gate.metric in COUNTS and gate.task in known else "unknown"
            clause = f"task '{gate.task}' {wrong}" if wrong != "unknown" else f"unknown task '{gate.task}'"
            raise BadInputError(f"gate '{gate.name}': {clause}, {nearest(str(gate.task), known)}")
        return tasks[str(gate.task)]

    def _known(self, gate: Gate, field: str, name: str) -> str:
        if name not in self.summary.variants:
            raise BadInputError(
                f"gate '{gate.name}': {field}: unknown variant '{name}', {nearest(name, self.summary.variants)}"
            )
        return name

    def _require(self, path: Path, gate: Gate | None = None) -> Path:
        name = path.relative_to(self.path).as_posix()
        if name not in self._listed:
            where = f"gate '{gate.name}': " if gate else ""
            raise BadInputError(f"{where}{self.path}: the run has no {name}")
        return path


def _check(path: Path, counted: float | None, told: float | None) -> None:
    if (counted is None) != (told is None) or abs((counted or 0.0) - (told or 0.0)) > _PLACES:
        raise BadInputError(f"{path}: comes to {counted}, and summary.json says {told}")
