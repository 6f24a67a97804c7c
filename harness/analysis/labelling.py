"""Answers of a run for a person to label: which, in what order, and where the labels are kept."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.base.errors import BadInputError
from harness.base.files import write_jsonl
from harness.data.tables import read_table
from harness.judges.labels import HumanLabel
from harness.runs.run import read_run


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer to label. The page shows prompt and response only, so that nobody labels a variant."""

    id: str
    prompt: str
    response: str
    model: str
    category: str


def draw_answers(path: Path, n: int, seed: int = 0) -> list[Shown]:
    """Return up to `n` answers of a run in random order, as many of each task and variant as can be.

    Verdicts play no part, since a sample chosen by them would misjudge the judge. An answer that several variants gave
    to one prompt comes once.

    Raises:
        BadInputError: the folder holds no finished run, or no answers.
    """
    run = read_run(path)
    summary = run.summary
    generator = random.Random(seed)
    cells: list[list[Shown]] = []
    seen: set[tuple[str, str]] = set()
    for name, variant in summary.variants.items():
        for task in summary.tasks() if variant.skipped is None else ():
            cell = []
            for row in run.answers(name, task):
                if (row.prompt, row.response) not in seen:
                    seen.add((row.prompt, row.response))
                    id = f"{name}/{task}/{row.id}"
                    cell.append(Shown(id, row.prompt, row.response, summary.model.name, task))
            generator.shuffle(cell)
            cells.append(cell)
    drawn: list[Shown] = []
    while len(drawn) < n and any(cells):
        for cell in cells:
            if cell and len(drawn) < n:
                drawn.append(cell.pop())
    if not drawn:
        raise BadInputError(f"{path}: expected answers to label, found none")
    generator.shuffle(drawn)
    return drawn


@dataclass
class Labelling:
    """A person's labels of some answers; each is on disk before the next answer is shown.

    Attributes:
        answers: what there is to label.
        path: the file, which `harness judges evaluate` reads; one from an earlier sitting is continued.
    """

    answers: list[Shown]
    path: Path
    _labels: dict[str, HumanLabel] = field(default_factory=dict)
    _put_off: list[str] = field(default_factory=list)
    _kept: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        ids = {answer.id for answer in self.answers}
        if self.path.exists():
            for row in read_table(self.path):
                if row.get("id") in ids:
                    self._labels[row["id"]] = row["label"]
                else:
                    self._kept.append(row)

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
        rows = [asdict(by_id[id]) | {"label": label} for id, label in self._labels.items()]
        write_jsonl(self.path, [*self._kept, *rows])
