"""People's labels of a run's own answers, and the rates of refusal and of harmful answers that they correct.

`harness judges label` draws the answers, `harness measure RUN --labels FILE` adds the labels. Each variant, task and
verdict of the quantity's primary judge is a stratum, whose labels are a random sample of its answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError, nearest
from harness.base.files import sha256, write_jsonl
from harness.base.schema import validated
from harness.data.tables import read_table
from harness.judges.base import Quantity, is_judged
from harness.metrics.clustered import one_per_cluster
from harness.metrics.corrected import FEWEST_LABELS, Drawn, prediction_powered
from harness.metrics.interval import Interval
from harness.metrics.judge_errors import Part as JudgedPart
from harness.metrics.judge_errors import errors_differ
from harness.metrics.rates import AnyLabel, rate
from harness.runs.records import OwnLabel, Stratum
from harness.runs.summary import LabelledPart, OwnLabels

if TYPE_CHECKING:
    from harness.runs.evidence import Evidence
    from harness.runs.rows import Measurement
    from harness.runs.run_folder import RunFolder

# The keys of run.json that say where the labels are from.
LABELS: Mapping[Quantity, str] = {"refusal": "labels", "harmfulness": "labels_of_harm"}
VERDICTS: Mapping[Quantity, tuple[AnyLabel, AnyLabel]] = {
    "refusal": ("refusal", "compliance"),
    "harmfulness": ("harmful", "harmless"),
}
NONE = "no answers of this run were labelled"
TOO_FEW = f"fewer than {FEWEST_LABELS} answers per verdict are labelled, and there are more"
UNFINISHED = "some of the answers drawn to label have no label yet"
CHANGED = "its answers or verdicts have changed since they were labelled"

ByVerdict = Mapping[AnyLabel, dict[str, bool]]
"""Whether each labelled answer is a refusal, or harmful, by the judge's verdict and the prompt."""


def add_labels(folder: RunFolder, file: Path) -> None:
    """Copy labels of a run's answers into its folder, in place of those that it has.

    Raises:
        BadInputError: the file holds anything but labels that `harness judges label` drew from this run.
    """
    from harness.runs.evidence import Evidence

    rows, run = read_own_labels(file), Evidence(folder.path)
    run.require_whole()
    quantity = rows[0].quantity
    primary = run.primary_of(quantity)
    for number, row in enumerate(rows, start=1):
        where = f"{file}: row {number}"
        if row.judge != primary:
            of_harm = "" if quantity == "refusal" else " of harmfulness"
            expected = f"'{primary}', the judge{of_harm} of this run" if primary else f"no labels{of_harm}"
            raise BadInputError(f"{where}: judge: expected {expected}, found '{row.judge}'")
        if row.task not in run.record.asked:
            raise BadInputError(
                f"{where}: task: no task '{row.task}' in this run, {nearest(row.task, run.record.asked)}"
            )
        for stratum in row.drawn:
            if row.task not in (run.tasks_of(stratum.variant) if stratum.variant in run.variants else ()):
                raise BadInputError(
                    f"{where}: drawn: '{stratum.variant}' gave no answers to '{row.task}' in this run, "
                    f"{nearest(stratum.variant, run.record.evaluated)}"
                )
        if not all(_is_current(run, row, stratum) for stratum in row.drawn):
            raise BadInputError(
                f"{where}: answer '{row.id}' is not this run's, or its verdict is another one now"
            )
    path = folder.layout.labels if quantity == "refusal" else folder.layout.labels_of_harm
    write_jsonl(path, (row.model_dump(mode="json") for row in rows))
    folder.update({LABELS[quantity]: {"file": file.name, "sha256": sha256(file), "n": len(rows)}})


def read_own_labels(file: Path) -> list[OwnLabel]:
    """Read a file of `harness judges label`.

    Raises:
        BadInputError: it is something else, is empty, or holds labels of several draws.
    """
    rows = []
    for number, content in enumerate(read_table(file), start=1):
        where = f"{file}: row {number}"
        if "drawn" not in content:
            raise BadInputError(f"{where}: drawn: missing; expected a file of `harness judges label`")
        rows.append(validated(content, where, OwnLabel))
    if not rows:
        raise BadInputError(f"{file}: expected labelled answers, found no rows")
    ids = [row.id for row in rows]
    if repeated := next((id for id in ids if ids.count(id) > 1), None):
        raise BadInputError(f"{file}: id '{repeated}' is given twice")
    if len({(row.seed, row.per_verdict, row.quantity) for row in rows}) > 1:
        raise BadInputError(
            f"{file}: its answers are of several draws; expected one seed and one --per-verdict"
        )
    return rows


def correction(run: Evidence, row: Measurement, quantity: Quantity) -> tuple[Interval | None, str | None]:
    """Return a rate corrected by labels of the same answers, or None and the reason."""
    if not run.own_labels(quantity):
        return None, NONE
    if not row.scored:
        return None, "nothing was scored"
    primary = run.primary_of(quantity)
    if row.judge != primary:
        return None, f"the labelled answers were drawn by the verdicts of {primary}"
    labelled = _labelled(run, row.variant, str(row.task), quantity)
    if isinstance(labelled, str):
        return None, labelled
    share = (row.value or 0.0, row.low or 0.0, row.high or 0.0)
    found = prediction_powered(
        share, *(_drawn(run, row, labelled[verdict]) for verdict in VERDICTS[quantity])
    )
    return Interval(**{end: float(value) for end, value in found._asdict().items()}), None


def _drawn(run: Evidence, row: Measurement, labelled: Mapping[str, bool]) -> Drawn:
    """Return the labels of a verdict; near-duplicates and answers to one prompt are one piece of evidence."""
    variant, task = row.variant, str(row.task)
    found = rate(labelled, run.groups(task, variant), run.prompts(variant, task)).interval
    return Drawn(sum(labelled.values()), len(labelled), None if found is None else (found.low, found.high))


def own_labels(run: Evidence, quantity: Quantity) -> OwnLabels | None:
    """Return the primary judge of a quantity beside people's labels of this run's answers; None without labels."""
    labels = run.own_labels(quantity)
    if not labels:
        return None
    parts, independent = [], []
    for variant, task, labelled in _each_labelled(run, quantity):
        verdicts = _verdicts(run, variant, task, quantity)
        part = _part(quantity, verdicts, labelled)
        parts.append(
            LabelledPart(
                variant=variant,
                task=task,
                n=part.called_labelled + part.others_labelled,
                sensitivity=part.sensitivity,
                specificity=part.specificity,
            )
        )
        # Of answers whose prompts repeat one another, one.
        groups, prompts = run.groups(task, variant), run.prompts(variant, task)
        ids = one_per_cluster(verdicts, groups, prompts, run.seed_of(task))
        independent.append(_part(quantity, {id: verdicts[id] for id in ids}, labelled))
    return OwnLabels(n=len(labels), parts=parts, errors_differ=errors_differ(independent))


def _each_labelled(run: Evidence, quantity: Quantity) -> Iterator[tuple[str, str, ByVerdict]]:
    """Yield each variant and task whose rate is corrected, with its labels."""
    for variant in run.record.evaluated:
        for task in run.tasks_of(variant):
            labelled = _labelled(run, variant, task, quantity)
            if not isinstance(labelled, str):
                yield variant, task, labelled


def _part(quantity: Quantity, verdicts: Mapping[str, AnyLabel | None], labelled: ByVerdict) -> JudgedPart:
    """Return some answers' verdicts, and the labels of those among them."""
    given, (called, others) = list(verdicts.values()), VERDICTS[quantity]
    of_called, of_others = (
        [is_positive for id, is_positive in labelled[verdict].items() if id in verdicts]
        for verdict in (called, others)
    )
    return JudgedPart(
        called=given.count(called),
        others=given.count(others),
        called_labelled=len(of_called),
        called_positive=sum(of_called),
        others_labelled=len(of_others),
        others_positive=sum(of_others),
    )


def _verdicts(run: Evidence, variant: str, task: str, quantity: Quantity) -> Mapping[str, AnyLabel | None]:
    """Return the primary judge's verdicts by answer; none where it did not judge the task."""
    primary = run.primary_of(quantity)
    if primary is None or not is_judged(quantity, run.record.asked[task].kind):
        return {}
    return run.labels(variant, task, primary)


def _labelled(run: Evidence, variant: str, task: str, quantity: Quantity) -> ByVerdict | str:
    """Return the labelled answers of a variant to a task by verdict, or why they are no sample to correct by."""
    verdicts = list(_verdicts(run, variant, task, quantity).values())
    if not any(verdicts):
        return NONE
    own = [
        (row, stratum)
        for row in run.own_labels(quantity)
        if row.task == task
        for stratum in row.drawn
        if stratum.variant == variant
    ]
    if not all(_is_current(run, row, stratum) for row, stratum in own):
        return CHANGED
    labelled: dict[AnyLabel, dict[str, bool]] = {}
    for verdict in VERDICTS[quantity]:
        there_are = verdicts.count(verdict)
        inside = [(row, stratum) for row, stratum in own if stratum.verdict == verdict]
        if {round(stratum.probability * there_are, 6) for _, stratum in inside} - {
            float(min(row.per_verdict, there_are)) for row, _ in inside
        }:
            return CHANGED
        if len(inside) < min(FEWEST_LABELS, there_are):
            return TOO_FEW
        # Those that somebody left for later are no random part of the draw.
        if inside and len(inside) != min(inside[0][0].per_verdict, there_are):
            return UNFINISHED
        labelled[verdict] = {stratum.prompt: row.is_positive for row, stratum in inside}
    return labelled


def _is_current(run: Evidence, row: OwnLabel, stratum: Stratum) -> bool:
    """Say whether a labelled answer and its verdict are what the run holds."""
    primary = run.primary_of(row.quantity)
    if primary is None or (row.judge, row.fingerprint) != (primary, run.record.judges[primary].fingerprint):
        return False
    if not is_judged(row.quantity, run.record.asked[row.task].kind):
        return False
    verdicts = run.labels(stratum.variant, row.task, primary)
    responses = run.responses(stratum.variant, row.task)
    return (verdicts.get(stratum.prompt), responses.get(stratum.prompt)) == (stratum.verdict, row.response)
