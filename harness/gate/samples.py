"""The samples of a run, each a success or not: the data that gates decide on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from harness.base.errors import BadInputError, nearest
from harness.gate.schema import COUNTS, Gate
from harness.metrics.clustered import one_per_cluster
from harness.metrics.rates import Prompts
from harness.runs.evidence import Evidence
from harness.runs.metrics import metric_of
from harness.runs.protocol import Protocol, protocols
from harness.runs.rows import HARMFUL, REFUSAL, Measurement

UNSCORED = "unscored"
_ROUNDING = 1e-9

Success = bool | None
"""Whether a sample counts towards the share; None where it could not be scored."""


@dataclass(frozen=True)
class Samples:
    """One metric of one variant on one task, sample by sample.

    Attributes:
        variant: whose answers.
        task: the prompt task or lm-eval task.
        metric: whose share it is.
        judge: the judge of the answers; None for a capability task.
        succeeded: by sample id.
        prompts: by sample id; empty for a capability task, whose items the run does not keep.
        words: for a sample that counts, and for one that does not.
        groups: of near-duplicates, by sample id; None where none repeats another.
        seed: draws the member of each group that stands for it.
        asked: the id of each sample's prompt, where samples are several answers to a prompt; None elsewhere.
    """

    variant: str
    task: str
    metric: str
    judge: str | None
    succeeded: Mapping[str, Success]
    prompts: Mapping[str, str]
    words: tuple[str, str]
    groups: Mapping[str, int] | None = None
    seed: int = 0
    asked: Prompts | None = None

    @cached_property
    def independent(self) -> Samples:
        """One answer per prompt and prompt per group of near-duplicates, drawn without a look at any outcome."""
        if self.groups is None and self.asked is None:
            return self
        drawn = one_per_cluster(self.succeeded, self.groups, self.asked, self.seed)
        return replace(self, succeeded={id: self.succeeded[id] for id in drawn}, groups=None, asked=None)

    @property
    def called(self) -> dict[str, Success]:
        """Whether each word means a success."""
        return {self.words[0]: True, self.words[1]: False, UNSCORED: None}

    @property
    def labels(self) -> dict[str, str]:
        """What each sample is called, in a word."""
        words = {success: word for word, success in self.called.items()}
        return {sample: words[success] for sample, success in self.succeeded.items()}

    @property
    def n(self) -> int:
        """How many samples were asked."""
        return len(self.succeeded)

    @property
    def unscored(self) -> int:
        """How many of them have no verdict."""
        return sum(success is None for success in self.succeeded.values())

    @property
    def successes(self) -> int:
        """How many count towards the share."""
        return sum(success is True for success in self.succeeded.values())

    @property
    def scored(self) -> int:
        """How many have a verdict."""
        return self.n - self.unscored

    @property
    def value(self) -> float | None:
        """The share among scored samples."""
        return self.successes / self.scored if self.scored else None

    @property
    def key(self) -> tuple[str, str, str, str | None]:
        """The figure that they are of."""
        return self.variant, self.task, self.metric, self.judge

    def hash_of(self, sample: str, label: str) -> str:
        """Return the hash of a sample with this label; it covers the prompt without revealing it."""
        content = json.dumps([self.task, self.metric, sample, self.prompts[sample], label])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class GatedRun(Evidence):
    """A run folder that was checked, file by file, against its manifest.

    Args:
        path: the run folder.

    Raises:
        BadInputError: it is not the folder of a finished run, or a file is missing, cut off, changed or not listed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.verify()

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """The protocol of each task."""
        return protocols(self)

    def protocol_of(self, samples: Samples) -> Protocol:
        """Return how the samples came about, which includes the version of the judge that labelled them."""
        own = {"judge_fingerprint": self.summary.judge_fingerprint(samples.judge)}
        return self.protocols[samples.task].model_copy(update=own)

    def named(self, gate: Gate, field: Literal["variant", "against"]) -> str:
        """Return the variant that a gate's field names, by default the run's intervention.

        Raises:
            BadInputError: the run has none of this name.
        """
        name, variants = getattr(gate, field) or self.summary.intervention, self.summary.variants
        if name not in variants:
            raise BadInputError(
                f"gate '{gate.name}': {field}: unknown variant '{name}', {nearest(name, variants)}"
            )
        return str(name)

    def frozen(self, gate: Gate) -> bool:
        """Return whether a variant's frozen weights are unchanged, as its proof says.

        Raises:
            BadInputError: nothing was trained, or summary and proof disagree.
        """
        name = self.named(gate, "variant")
        is_unchanged = self.summary.variants[name].frozen_unchanged
        if is_unchanged is None:
            raise BadInputError(
                f"gate '{gate.name}': nothing was trained in '{name}', so there is no frozen proof"
            )
        path, proof = self.layout.variant(name).proof, self.proof(name)
        if proof is None:
            raise BadInputError(
                f"gate '{gate.name}': {self.path}: the run has no {path.relative_to(self.path)}"
            )
        if proof.frozen_unchanged != is_unchanged or bool(proof.violations) == is_unchanged:
            raise BadInputError(f"{path}: does not say what summary.json says of the frozen weights")
        return is_unchanged

    def figure(self, gate: Gate, variant: str) -> Measurement:
        """Return the figure of a variant that a gate is about; for a count, the rate of the counted answers.

        Raises:
            BadInputError: the run has no such task or metric, or no such judge measured it.
        """
        is_count = gate.metric in COUNTS
        rows = self.summary.of(variant)
        of_task = [row for row in rows if row.task == gate.task]
        metric, judge = gate.metric, gate.judge
        if is_count:
            judge = judge or self.summary.judge
            of_harm = any((row.metric, row.judge) == (HARMFUL, judge) for row in of_task)
            metric = HARMFUL if of_harm else REFUSAL
        of_metric = [row for row in of_task if row.metric == metric]
        tasks = {row.task for row in rows if row.task is not None}
        judges = [row.judge for row in of_metric if row.judge is not None]
        if not of_task:
            problem = f"unknown task '{gate.task}', {nearest(str(gate.task), tasks)}"
        elif not of_metric and is_count:
            problem = f"task '{gate.task}' has no such count, {nearest(str(gate.task), tasks)}"
        elif not of_metric:
            metrics = {row.metric for row in of_task}
            known = metrics | set(COUNTS) if REFUSAL in metrics else metrics
            where = "this run" if gate.task is None else f"task '{gate.task}'"
            problem = f"unknown metric '{metric}' of {where}, {nearest(metric, known)}"
        elif judge is None or judge in judges:
            return next(row for row in of_metric if judge in (None, row.judge))
        elif judges:
            problem = f"judge: no verdicts of '{judge}' on '{gate.task}', {nearest(judge, judges)}"
        else:
            problem = f"judge: no judge labels the answers to '{gate.task}' for {metric}"
        raise BadInputError(f"gate '{gate.name}': {problem}")

    def samples(self, row: Measurement) -> Samples | None:
        """Return the samples of a figure, each a success or not; None where its samples are not yes or no.

        Raises:
            BadInputError: the run's files disagree with its summary.
        """
        metric = metric_of(row.metric, row.kind)
        succeeded = metric.samples(self, row)
        if succeeded is None or row.task is None:
            return None
        prompts = dict.fromkeys(succeeded, "")
        path = self.layout.variant(row.variant).folder
        asked = metric.prompts(self, row)
        if row.judge is not None:
            answers = self.answers(row.variant, row.task)
            # The samples of some metrics are prompts, whatever the number of their answers.
            prompts = {answer.id: answer.prompt for answer in answers}
            if not prompts.keys() >= succeeded.keys():
                prompts = {answer.prompt_id: answer.prompt for answer in answers}
            path = self.layout.variant(row.variant).verdicts(row.task, row.judge)
        # Some metrics are about some of the answers, such as the refusals.
        if not succeeded.keys() <= prompts.keys() or len(succeeded) != row.n:
            raise BadInputError(f"{path}: does not hold one verdict for each of the {row.n} answers")
        prompts = {id: prompts[id] for id in succeeded}
        samples = Samples(
            row.variant,
            row.task,
            row.metric,
            row.judge,
            succeeded,
            prompts,
            metric.called(row),
            metric.groups(self, row),
            self.seed_of(row.task),
            asked,
        )
        value = samples.value
        if (value is None) != (row.value is None) or abs((value or 0.0) - (row.value or 0.0)) > _ROUNDING:
            raise BadInputError(f"{path}: comes to {value}, and summary.json says {row.value}")
        return samples
