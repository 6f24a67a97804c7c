"""What each sample of a run came to: the data that gates decide on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.base.errors import BadInputError, nearest
from harness.gate.schema import COUNTS, Gate
from harness.runs.evidence import Evidence
from harness.runs.metric import metric_of
from harness.runs.protocol import Protocol, protocols
from harness.runs.rows import REFUSAL, Kind, Measurement
from harness.runs.run import Run
from harness.runs.summary import Summary

UNSCORED = "unscored"
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
        kind: what was asked.
        outcomes: by sample id.
        prompts: by sample id; empty for a capability task, whose items the run does not keep.
        words: what a sample that counts is called, and one that does not.
    """

    variant: str
    task: str
    metric: str
    judge: str | None
    kind: Kind
    outcomes: Mapping[str, Outcome]
    prompts: Mapping[str, str]
    words: tuple[str, str]

    @property
    def called(self) -> dict[str, Outcome]:
        """What each word for an outcome stands for."""
        return {self.words[0]: True, self.words[1]: False, UNSCORED: None}

    @property
    def labels(self) -> dict[str, str]:
        """What each sample came to, in a word."""
        words = {outcome: word for word, outcome in self.called.items()}
        return {sample: words[outcome] for sample, outcome in self.outcomes.items()}

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
        self.run = Evidence(Run(path))
        self.run.verify()
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
        path, proof = self.run.layout.variant(name).proof, self.run.proof(name)
        if proof is None:
            raise BadInputError(
                f"gate '{gate.name}': {self.path}: the run has no {path.relative_to(self.path)}"
            )
        if proof.frozen_unchanged != said or bool(proof.violations) == said:
            raise BadInputError(f"{path}: does not say what summary.json says of the frozen weights")
        return said

    def count(self, gate: Gate) -> tuple[int, int]:
        """Return how many answers of a gate's task are unscored or truncated, and of how many."""
        row = self._figure(gate, self.variant_name(gate), REFUSAL, self.summary.judge)
        return (row.unscored if gate.metric == COUNTS[0] else row.truncated or 0), row.n

    def figure(self, gate: Gate, variant: str) -> Measurement:
        """Return the figure of a variant that a gate is about.

        Raises:
            BadInputError: the run has no such task or metric, or no such judge measured it.
        """
        return self._figure(gate, variant, gate.metric, gate.judge)

    def samples(self, row: Measurement) -> Samples | None:
        """Return what each sample of a figure came to; None where its samples are not yes or no.

        Raises:
            BadInputError: the run's files disagree with its summary.
        """
        metric = metric_of(row.metric, row.kind)
        outcomes = metric.samples(self.run, row)
        if outcomes is None or row.task is None:
            return None
        prompts = dict.fromkeys(outcomes, "")
        path = self.path / "variants" / row.variant
        if row.judge is not None:
            prompts = {answer.id: answer.prompt for answer in self.run.answers(row.variant, row.task)}
            path = self.run.layout.variant(row.variant).verdicts(row.task, row.judge)
        if outcomes.keys() != prompts.keys() or len(outcomes) != row.n:
            raise BadInputError(f"{path}: does not hold one verdict for each of the {row.n} answers")
        samples = Samples(
            row.variant, row.task, row.metric, row.judge, row.kind, outcomes, prompts, metric.words
        )
        _check(path, samples.value, row.value)
        return samples

    def _figure(self, gate: Gate, variant: str, metric: str, judge: str | None) -> Measurement:
        whole = self.summary.of(variant)
        of_task = [row for row in whole if row.task == gate.task]
        if not of_task:
            known = {row.task for row in whole if row.task is not None}
            raise BadInputError(
                f"gate '{gate.name}': unknown task '{gate.task}', {nearest(str(gate.task), known)}"
            )
        of_metric = [row for row in of_task if row.metric == metric]
        if not of_metric and gate.metric in COUNTS:
            known = {row.task for row in whole if row.task is not None}
            raise BadInputError(
                f"gate '{gate.name}': task '{gate.task}' has no such count, {nearest(str(gate.task), known)}"
            )
        if not of_metric:
            names = {row.metric for row in of_task}
            has_counts = any(row.metric == REFUSAL for row in of_task)
            where = "this run" if gate.task is None else f"task '{gate.task}'"
            raise BadInputError(
                f"gate '{gate.name}': unknown metric '{metric}' of {where}, "
                f"{nearest(metric, [*names, *(COUNTS if has_counts else ())])}"
            )
        found = [row for row in of_metric if judge in (None, row.judge)]
        if not found:
            judges = [row.judge for row in of_metric if row.judge is not None]
            clause = (
                f"no verdicts of '{judge}' on '{gate.task}', {nearest(str(judge), judges)}"
                if judges
                else f"no judge labels the answers to '{gate.task}' for {metric}"
            )
            raise BadInputError(f"gate '{gate.name}': judge: {clause}")
        return found[0]

    def _known(self, gate: Gate, field: str, name: str) -> str:
        if name not in self.summary.variants:
            raise BadInputError(
                f"gate '{gate.name}': {field}: unknown variant '{name}', {nearest(name, self.summary.variants)}"
            )
        return name


def _check(path: Path, counted: float | None, told: float | None) -> None:
    if (counted is None) != (told is None) or abs((counted or 0.0) - (told or 0.0)) > _PLACES:
        raise BadInputError(f"{path}: comes to {counted}, and summary.json says {told}")
