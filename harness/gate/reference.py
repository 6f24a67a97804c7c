"""A reference: what an earlier run came to, sample by sample, pinned in a file that belongs into the repository.

The file holds a hash over each sample's prompt and verdict and no prompt. With the run at hand each hash tells
which verdict it stands for, and a prompt that has since changed is noticed, since none fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.base.content import content_folder
from harness.base.errors import BadInputError, nearest
from harness.base.files import write_json
from harness.base.schema import read_json_as
from harness.gate.outcomes import GatedRun, Outcome, Samples
from harness.gate.schema import COUNTS, FROZEN, Gate, GateFile
from harness.report.words import hundredths
from harness.runs.protocol import Protocol

SCHEMA_VERSION: Literal[1] = 1
_FOLDER = Path("baselines") / "reference"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PinnedProtocol(_Part):
    """How the task was put."""

    task_version: str
    prompts: str
    decoding: str
    judge: str | None


class PinnedMetric(_Part):
    """One metric of one variant on one task."""

    variant: str
    task: str
    metric: str
    judge: str | None
    better: Literal["higher", "lower"]
    value: float | None
    n: int = Field(ge=0)
    unscored: int = Field(ge=0)
    protocol: PinnedProtocol
    verdicts: dict[str, str]

    @property
    def key(self) -> tuple[str, str, str, str | None]:
        """What tells one pinned metric from another."""
        return self.variant, self.task, self.metric, self.judge


class Update(_Part):
    """One time that the reference was written."""

    run_id: str
    created: str
    harness_version: str
    model: str
    model_fingerprint: str
    reason: str | None
    loosened: list[str]


class Reference(_Part):
    """The whole file."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    metrics: list[PinnedMetric]
    history: list[Update]

    def pinned(self, gate: Gate, samples: Samples, run: GatedRun) -> Pinned:
        """Return what a gate's metric came to in the reference.

        Raises:
            BadInputError: the reference lacks the metric, or was not made on the same samples in the same way.
        """
        key = (samples.variant, samples.task, samples.metric, samples.judge)
        metric = next((metric for metric in self.metrics if metric.key == key), None)
        where = f"gate '{gate.name}': reference '{self.name}'"
        if metric is None:
            known = [f"{one.metric} of {one.variant} on {one.task}" for one in self.metrics]
            asked = f"{samples.metric} of {samples.variant} on {samples.task}"
            raise BadInputError(f"{where} has no {asked}, {nearest(asked, known)}")
        different = run.protocols[samples.task].difference(Protocol(**metric.protocol.model_dump()))
        if different is not None:
            raise BadInputError(f"{where} was made with another {different}: the two cannot be compared")
        return Pinned.recovered(metric, samples, where)


@dataclass(frozen=True, slots=True)
class Pinned:
    """What another variant or run came to on the same samples."""

    outcomes: Mapping[str, Outcome]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, samples: Samples) -> Pinned:
        """Take a variant's samples."""
        return cls(samples.outcomes, samples.labels)

    @classmethod
    def recovered(cls, metric: PinnedMetric, samples: Samples, where: str) -> Pinned:
        """Read the verdicts of a reference off their hashes, with the prompts of the run at hand."""
        different = metric.verdicts.keys() ^ samples.outcomes.keys()
        if different:
            raise BadInputError(
                f"{where}: {len(different)} samples of '{metric.task}' are in one only, such as '{min(different)}'"
            )
        labels: dict[str, str] = {}
        for sample, digest in metric.verdicts.items():
            label = next(
                (label for label in samples.called if samples.hash_of(sample, label) == digest), None
            )
            if label is None:
                raise BadInputError(f"{where}: sample '{sample}' of '{metric.task}' had another prompt")
            labels[sample] = label
        return cls({sample: samples.called[label] for sample, label in labels.items()}, labels)

    def value_in_words(self) -> str:
        """Return the share with its counts."""
        scored = [outcome for outcome in self.outcomes.values() if outcome is not None]
        if not scored:
            return "no value"
        return f"{hundredths(sum(scored) / len(scored))}% ({sum(scored)} of {len(scored)})"


def find_reference(named: str, file: GateFile) -> Reference:
    """Return the reference that `--against` names: a file, a run folder, or a name in baselines/reference/.

    Raises:
        BadInputError: there is none, or it cannot be read; of a run folder, a file is not what the run wrote.
    """
    path = Path(named)
    if path.is_dir():
        run = GatedRun(path)
        return Reference(name=named, metrics=pin(run, gates_of(file)), history=[])
    if path.is_file() or _is_path(named):
        return read_reference(path)
    for folder in (_FOLDER, content_folder("baselines") / "reference"):
        if (folder / f"{named}.json").is_file():
            return read_reference(folder / f"{named}.json")
    known = [
        found.stem
        for folder in (_FOLDER, content_folder("baselines") / "reference")
        for found in folder.glob("*.json")
    ]
    raise BadInputError(
        f"--against: no run folder, file or reference '{named}', {nearest(named, set(known))}"
    )


def reference_path(named: str) -> Path:
    """Return where `--update` writes: the file named, or NAME.json in baselines/reference/ of this folder."""
    return Path(named) if _is_path(named) else _FOLDER / f"{named}.json"


def read_reference(path: Path) -> Reference:
    """Read a reference file.

    Raises:
        BadInputError: it is missing, or is not a reference.
    """
    if not path.exists():
        raise BadInputError(f"{path}: no such reference; `--update` writes one")
    return read_json_as(path, Reference)


def gates_of(file: GateFile) -> list[Gate]:
    """Return the gates whose metric has samples."""
    return [gate for gate in file.gates if gate.metric not in (FROZEN, *COUNTS)]


def pin(run: GatedRun, gates: list[Gate]) -> list[PinnedMetric]:
    """Return the metrics that gates are about, as a run has them."""
    pinned: dict[tuple[str, str, str, str | None], PinnedMetric] = {}
    for gate in gates:
        name = run.variant_name(gate)
        if run.skipped(name) is not None:
            continue
        samples = run.samples(run.figure(gate, name))
        if samples is None:
            continue
        protocol = run.protocols[samples.task]
        metric = PinnedMetric(
            variant=name,
            task=samples.task,
            metric=samples.metric,
            judge=samples.judge,
            better="higher" if gate.bound.side == "lower" else "lower",
            value=samples.value,
            n=samples.n,
            unscored=samples.unscored,
            protocol=PinnedProtocol(
                task_version=protocol.task_version,
                prompts=protocol.prompts,
                decoding=protocol.decoding,
                judge=protocol.judge,
            ),
            verdicts=samples.hashes(),
        )
        earlier = pinned.setdefault(metric.key, metric)
        if earlier.better != metric.better:
            raise BadInputError(
                f"gate '{gate.name}': another gate bounds {samples.metric} on '{samples.task}' from the other side, "
                "so a reference cannot tell which way is worse"
            )
    return list(pinned.values())


def loosened(old: Reference, new: list[PinnedMetric]) -> list[str]:
    """Return in words where a new reference would ask for less than an old one."""
    found: list[str] = []
    by_key = {metric.key: metric for metric in new}
    for was in old.metrics:
        name = f"{was.metric} of {was.variant} on {was.task}"
        now = by_key.get(was.key)
        if now is None:
            found.append(f"{name} would no longer be pinned")
        elif now.protocol != was.protocol or now.verdicts.keys() != was.verdicts.keys():
            found.append(f"{name} would be pinned on other samples or settings")
        elif now.better != was.better:
            found.append(f"{name} would be held to be better the {now.better} it is, not the {was.better}")
        elif was.value is not None and _is_worse(was, now):
            found.append(
                f"{name} would go from {was.value:.4f} to {'none' if now.value is None else f'{now.value:.4f}'}"
            )
        elif now.unscored > was.unscored:
            found.append(f"{name} would have {now.unscored} unscored samples, not {was.unscored}")
    return found


def updated(path: Path, run: GatedRun, file: GateFile, reason: str | None, failing: list[str]) -> Reference:
    """Write a reference anew from a run.

    Args:
        path: the file.
        run: the run to pin.
        file: the gates whose metrics are pinned.
        reason: why it may ask for less than before; None if it may not.
        failing: gates that do not pass on the run, in words.

    Raises:
        BadInputError: without a reason, a gate does not pass, or a pinned metric would get worse or be lost.
    """
    metrics = pin(run, gates_of(file))
    old = read_reference(path) if path.exists() else None
    lost = [*failing, *(loosened(old, metrics) if old else [])]
    if lost and reason is None:
        raise BadInputError(
            f"{path} is left as it was: {lost[0]}{f' (and {len(lost) - 1} more)' if len(lost) > 1 else ''}; "
            "--allow-regression REASON accepts it and keeps the reason"
        )
    if reason is not None and not reason.strip():
        raise BadInputError("--allow-regression: expected a reason, found nothing")
    summary = run.summary
    update = Update(
        run_id=summary.run_id,
        created=summary.created,
        harness_version=summary.harness_version,
        model=summary.model.name,
        model_fingerprint=summary.model.fingerprint,
        reason=reason if lost else None,
        loosened=lost,
    )
    reference = Reference(name=path.stem, metrics=metrics, history=[*(old.history if old else []), update])
    write_json(path, reference.model_dump(mode="json"))
    return reference


def _is_worse(was: PinnedMetric, now: PinnedMetric) -> bool:
    if now.value is None or was.value is None:
        return True
    return now.value < was.value if was.better == "higher" else now.value > was.value


def _is_path(named: str) -> bool:
    return "/" in named or named.endswith(".json")
