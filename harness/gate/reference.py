"""A reference: what an earlier run came to, sample by sample, pinned in a file that belongs in the repository.

The file holds a hash over each sample's prompt and verdict, and no prompt. The prompts of a new run recover the verdict
behind each hash; where no verdict fits, the prompt has changed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.base.content import content_folder
from harness.base.errors import BadInputError, nearest
from harness.base.files import write_json
from harness.base.schema import read_json_as
from harness.gate.samples import GatedRun, Samples, Success
from harness.gate.schema import CLAIM, COUNTS, FROZEN, Gate, GateFile
from harness.runs.protocol import Protocol

SCHEMA_VERSION: Literal[1] = 1
_FOLDER = Path("baselines") / "reference"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
    protocol: Protocol
    verdicts: dict[str, str]

    @property
    def key(self) -> tuple[str, str, str, str | None]:
        """The identity of a pinned metric."""
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

    def pinned(self, gate: Gate, samples: Samples, run: GatedRun) -> Samples:
        """Return the samples of a gate's metric as the reference has them, read off their hashes.

        Raises:
            BadInputError: the reference lacks the metric, or was not made on the same samples in the same way.
        """
        metric = next((metric for metric in self.metrics if metric.key == samples.key), None)
        where = f"gate '{gate.name}': reference '{self.name}'"
        if metric is None:
            known = [_named(metric) for metric in self.metrics]
            raise BadInputError(f"{where} has no {_named(samples)}, {nearest(_named(samples), known)}")
        different = run.protocol_of(samples).difference(metric.protocol)
        if different is not None:
            raise BadInputError(f"{where} was made with another {different}: the two cannot be compared")
        others = metric.verdicts.keys() ^ samples.succeeded.keys()
        if others:
            raise BadInputError(
                f"{where}: {len(others)} samples of '{metric.task}' are in one only, such as '{min(others)}'"
            )
        succeeded: dict[str, Success] = {}
        for sample, digest in metric.verdicts.items():
            labels = [label for label in samples.called if samples.hash_of(sample, label) == digest]
            if not labels:
                raise BadInputError(f"{where}: sample '{sample}' of '{metric.task}' had another prompt")
            succeeded[sample] = samples.called[labels[0]]
        return replace(samples, succeeded=succeeded)


def find_reference(named: str, file: GateFile) -> Reference:
    """Return the reference that `--against` names: a file, a run folder, or a name in baselines/reference/.

    Raises:
        BadInputError: there is none, or it cannot be read; of a run folder, a file is not what the run wrote.
    """
    path = Path(named)
    if path.is_dir():
        return Reference(name=named, metrics=pin(GatedRun(path), file), history=[])
    if path.is_file() or _is_path(named):
        return read_reference(path)
    folders = (content_folder("baselines") / "reference", _FOLDER)
    files = {file.stem: file for folder in folders for file in folder.glob("*.json")}
    if named not in files:
        raise BadInputError(f"--against: no run folder, file or reference '{named}', {nearest(named, files)}")
    return read_reference(files[named])


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


def pin(run: GatedRun, file: GateFile) -> list[PinnedMetric]:
    """Return the metrics with samples that gates are about, as a run has them."""
    pinned: dict[tuple[str, str, str, str | None], PinnedMetric] = {}
    for gate in file.gates:
        name = run.named(gate, "variant")
        if gate.metric in (FROZEN, CLAIM, *COUNTS) or run.summary.variants[name].skipped is not None:
            continue
        samples = run.samples(run.figure(gate, name))
        if samples is None:
            continue
        metric = PinnedMetric(
            variant=name,
            task=samples.task,
            metric=samples.metric,
            judge=samples.judge,
            better="higher" if gate.bound.side == "lower" else "lower",
            value=samples.value,
            n=samples.n,
            unscored=samples.unscored,
            protocol=run.protocol_of(samples),
            verdicts={sample: samples.hash_of(sample, label) for sample, label in samples.labels.items()},
        )
        earlier = pinned.setdefault(metric.key, metric)
        if earlier.better != metric.better:
            raise BadInputError(
                f"gate '{gate.name}': another gate bounds {samples.metric} on '{samples.task}' from the other side, "
                "so a reference cannot tell which way is worse"
            )
    return list(pinned.values())


def loosened(old: Reference, new: list[PinnedMetric]) -> list[str]:
    """Return in words where a new reference would require less than an old one."""
    losses: list[str] = []
    by_key = {metric.key: metric for metric in new}
    for was in old.metrics:
        name = _named(was)
        now = by_key.get(was.key)
        if now is None:
            losses.append(f"{name} would no longer be pinned")
        elif now.protocol.difference(was.protocol) is not None or now.verdicts.keys() != was.verdicts.keys():
            losses.append(f"{name} would be pinned on other samples or settings")
        elif now.better != was.better:
            losses.append(f"{name} would count as better when {now.better}, not when {was.better}")
        elif was.value is not None and _is_worse(was, now):
            losses.append(
                f"{name} would go from {was.value:.4f} to {'none' if now.value is None else f'{now.value:.4f}'}"
            )
        elif now.unscored > was.unscored:
            losses.append(f"{name} would have {now.unscored} unscored samples, not {was.unscored}")
    return losses


def update_reference(
    path: Path, run: GatedRun, file: GateFile, reason: str | None, failing: list[str]
) -> None:
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
    metrics = pin(run, file)
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
        **summary.model_dump(include={"run_id", "created", "harness_version"}),
        model=summary.model.name,
        model_fingerprint=summary.model.fingerprint,
        reason=reason if lost else None,
        loosened=lost,
    )
    reference = Reference(name=path.stem, metrics=metrics, history=[*(old.history if old else []), update])
    write_json(path, reference.model_dump(mode="json"))


def _is_worse(was: PinnedMetric, now: PinnedMetric) -> bool:
    if now.value is None or was.value is None:
        return True
    return now.value < was.value if was.better == "higher" else now.value > was.value


def _named(figure: PinnedMetric | Samples) -> str:
    return f"{figure.metric} of {figure.variant} on {figure.task}"


def _is_path(named: str) -> bool:
    return "/" in named or named.endswith(".json")
