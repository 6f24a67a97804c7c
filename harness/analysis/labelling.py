"""Answers of a run for a person to label: which, in what order, and where the labels are kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.base.errors import BadInputError, nearest
from harness.base.files import write_jsonl
from harness.base.fingerprint import fingerprint
from harness.judges.base import Quantity, is_judged
from harness.judges.labels import HumanLabel
from harness.metrics.corrected import FEWEST_LABELS
from harness.runs.evidence import Evidence
from harness.runs.labels import VERDICTS, read_own_labels
from harness.runs.records import OwnLabel, Stratum
from harness.runs.run import read_run

_OF_A_DRAW = ("judge", "fingerprint", "seed", "per_verdict", "quantity")


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer to label. The page shows prompt and response only, so that nobody labels a variant or a verdict.

    Attributes:
        id: of the answer.
        task: what was asked.
        prompt: the prompt's text.
        response: the answer's text.
        drawn: what it was drawn for.
    """

    id: str
    task: str
    prompt: str
    response: str
    drawn: tuple[Stratum, ...]


@dataclass(frozen=True, slots=True)
class Draw:
    """Answers of a run to label, drawn at random for each variant, task and verdict of a primary judge.

    Attributes:
        answers: in the order to show them.
        judge: the primary judge of the quantity.
        fingerprint: the judge's.
        seed: of the draw.
        per_verdict: answers drawn for each variant, task and verdict, or all there are.
        quantity: what is asked of the person.
    """

    answers: list[Shown]
    judge: str
    fingerprint: str
    seed: int
    per_verdict: int
    quantity: Quantity = "refusal"

    def row(self, answer: Shown, label: HumanLabel) -> dict[str, Any]:
        """Return a labelled answer as a row of the file of labels."""
        return {
            **{name: getattr(answer, name) for name in ("id", "task", "prompt", "response")},
            **{name: getattr(self, name) for name in _OF_A_DRAW},
            "drawn": [stratum.model_dump() for stratum in answer.drawn],
            "label": label,
        }

    def holds(self, row: OwnLabel) -> bool:
        """Say whether a labelled answer is of the same draw."""
        return all(getattr(row, name) == getattr(self, name) for name in _OF_A_DRAW)


class _Place(NamedTuple):
    rank: int
    stratum: Stratum


def draw_answers(
    path: Path,
    per_verdict: int = FEWEST_LABELS,
    seed: int = 0,
    variants: Collection[str] = (),
    quantity: Quantity = "refusal",
) -> Draw:
    """Draw answers of a run to label.

    Each answer has a random number, and a stratum takes those with the lowest: a random sample of it, and strata with
    the same answers share most of what they draw. An answer that several variants gave is labelled once, and counts for
    each that drew it.

    Args:
        path: the run folder.
        per_verdict: answers for each variant, task and verdict, or all there are.
        seed: of the draw.
        variants: whose answers to show; by default everyone's. The draw is the same whoever is shown.
        quantity: what to ask.

    Raises:
        BadInputError: the folder holds no finished run, a changed one, or no answers with a verdict; or a variant is
            unknown.
    """
    opened = read_run(path)
    _ = opened.summary
    opened.verify()
    run = Evidence(path)
    run.require_whole()
    for name in variants:
        if name not in run.record.evaluated:
            raise BadInputError(
                f"--variants: unknown variant '{name}', {nearest(name, run.record.evaluated)}"
            )
    primary = run.primary_of(quantity)
    if primary is None:
        raise BadInputError(
            f"--quantity {quantity}: no judge of {path} measures it: add one with "
            f"`harness evaluate {path} --judge NAME`"
        )
    drawn: dict[tuple[str, str, str], list[_Place]] = {}
    for variant in run.record.evaluated:
        for task, kind in run.tasks_of(variant).items():
            if not is_judged(quantity, kind):
                continue
            labels = run.labels(variant, task, primary)
            for verdict in VERDICTS[quantity]:
                inside = [answer for answer in run.answers(variant, task) if labels[answer.id] == verdict]
                inside.sort(key=lambda answer: fingerprint([seed, task, answer.id, answer.response]))
                n = min(per_verdict, len(inside))
                for rank, answer in enumerate(inside[:n]):
                    stratum = Stratum(
                        variant=variant, prompt=answer.id, verdict=verdict, probability=n / len(inside)
                    )
                    key = (task, answer.prompt, answer.response)
                    drawn.setdefault(key, []).append(_Place(rank, stratum))
    shown = []
    for (task, prompt, response), places in drawn.items():
        ranks = [place.rank for place in places if not variants or place.stratum.variant in variants]
        if ranks:
            first = places[0].stratum
            id = f"{first.variant}/{task}/{first.prompt}"
            strata = tuple(place.stratum for place in places)
            # Stopping early leaves about as many labels of each stratum.
            order = (min(ranks), fingerprint([seed, "order", id]))
            shown.append((order, Shown(id, task, prompt, response, strata)))
    if not shown:
        raise BadInputError(f"{path}: expected answers to label, found none")
    answers = [answer for _, answer in sorted(shown, key=lambda each: each[0])]
    return Draw(answers, primary, run.record.judges[primary].fingerprint, seed, per_verdict, quantity)


@dataclass
class Labelling:
    """A person's labels of some answers; each is on disk before the next answer is shown.

    Attributes:
        draw: what there is to label.
        path: the file, which `harness measure RUN --labels` reads; one from an earlier sitting is continued.

    Raises:
        BadInputError: the file holds something else, or labels of another draw.
    """

    draw: Draw
    path: Path
    _labels: dict[str, HumanLabel] = field(default_factory=dict)
    _put_off: list[str] = field(default_factory=list)
    _kept: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        by_id = {answer.id: answer for answer in self.draw.answers}
        if not self.path.exists() or not self.path.stat().st_size:
            return
        for row in read_own_labels(self.path):
            answer = by_id.get(row.id)
            if not self.draw.holds(row) or (answer is not None and answer.response != row.response):
                raise BadInputError(
                    f"{self.path}: holds labels of another draw (judge {row.judge}, seed {row.seed}, "
                    f"{row.per_verdict} per verdict) or of other answers: name another --output"
                )
            if answer is None:
                self._kept.append(row.model_dump())
            else:
                self._labels[row.id] = row.label

    @property
    def answers(self) -> list[Shown]:
        """What there is to label."""
        return self.draw.answers

    @property
    def done(self) -> int:
        """How many of the answers are labelled."""
        return len(self._labels)

    def next(self) -> Shown | None:
        """Return the next answer without a label, those put off last; None when all have one."""
        waiting = [answer for answer in self.answers if answer.id not in self._labels]
        return min(waiting, key=lambda answer: self._put_off.count(answer.id), default=None)

    def label(self, id: str, label: HumanLabel) -> None:
        """Keep a label.

        Raises:
            KeyError: no such answer is to be labelled.
        """
        if id not in {answer.id for answer in self.answers}:
            raise KeyError(id)
        self._labels.pop(id, None)
        self._labels[id] = label
        self._write()

    def put_off(self, id: str) -> None:
        """Show an answer again later."""
        self._put_off.append(id)

    def undo(self) -> None:
        """Forget the last label."""
        if self._labels:
            self._labels.popitem()
            self._write()

    def _write(self) -> None:
        by_id = {answer.id: answer for answer in self.answers}
        rows = [self.draw.row(by_id[id], label) for id, label in self._labels.items()]
        write_jsonl(self.path, [*self._kept, *rows])
