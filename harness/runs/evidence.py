"""A run folder with what its figures are made from: who was asked what, whose verdicts there are, what repeats."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.data.duplicates import group_labels, near_duplicates
from harness.judges.base import Quantity
from harness.metrics.agreement import majority
from harness.runs.records import AskedRecord, EvaluatedRecord, JudgeRecord
from harness.runs.run import Run

if TYPE_CHECKING:
    from harness.judges.card import Card
    from harness.metrics.rates import AnyLabel, Rate
    from harness.runs.rows import Kind

QUANTITIES: tuple[Quantity, ...] = ("refusal", "harmfulness")
MAJORITY = "majority"
"""The judge by whose name the label is called that most judges of refusal agree on."""
_FEWEST_OF_A_MAJORITY = 3


class Evidence(Run):
    """The files of a run that figures are made from, each read once.

    Args:
        run: the folder.
    """

    def __init__(self, run: Run) -> None:
        super().__init__(run.path)
        self._groups: dict[str, Mapping[str, int] | None] = {}
        self._labels: dict[tuple[str, str, str], Mapping[str, AnyLabel | None]] = {}
        self._phrasings: dict[tuple[str, str], Mapping[str, Rate]] = {}

    def require_whole(self) -> None:
        """Check that all there is to measure is there.

        Raises:
            BadInputError: run.json lacks what figures need, or a variant was not evaluated to its end.
        """
        for what in ("variants", "asked", "judges"):
            if not getattr(self.record, what):
                raise BadInputError(
                    f"{self.layout.run}: {what}: missing; running its command again on this folder writes it"
                )
        missing = [name for name in self.record.variants if name not in self.record.evaluated]
        if missing:
            raise BadInputError(
                f"{self.path}: the run is not finished: '{missing[0]}' was not evaluated; run its command again"
            )

    @property
    def evaluated(self) -> Mapping[str, EvaluatedRecord]:
        """How the evaluation of each variant ended."""
        return self.record.evaluated

    @property
    def asked(self) -> Mapping[str, AskedRecord]:
        """How each task was asked, forced starts apart from free ones."""
        return self.record.asked

    @cached_property
    def primary(self) -> str:
        """The primary judge."""
        return next(iter(self.record.judges))

    def judge(self, name: str) -> JudgeRecord:
        """Return what run.json records of a judge."""
        return self.record.judges[name]

    @cached_property
    def _cards(self) -> dict[str, Card | None]:
        from harness.judges.card import read_card

        paths = {name: self.layout.card(name) for name in self.record.judges}
        return {name: read_card(path) if path.is_file() else None for name, path in paths.items()}

    def card(self, judge: str) -> Card | None:
        """Return a judge's card as the run keeps it; None where the judge was never measured."""
        return self._cards[judge]

    def judges_of(self, quantity: Quantity) -> list[str]:
        """Return the judges of a quantity, the primary one first; three or more of refusal also have a majority."""
        named = [name for name, judge in self.record.judges.items() if judge.measures == quantity]
        has_majority = quantity == "refusal" and len(named) >= _FEWEST_OF_A_MAJORITY
        return [*named, MAJORITY] if has_majority else named

    def tasks_of(self, variant: str) -> dict[str, Kind]:
        """Return the kind of each prompt task that a variant answered; none of a skipped one."""
        if self.evaluated[variant].skipped is not None:
            return {}
        return {task: asked.kind for task, asked in self.asked.items()}

    def labels(self, variant: str, task: str, judge: str) -> Mapping[str, AnyLabel | None]:
        """Return a judge's label of each answer by the prompt's id, None where it is unscored."""
        key = (variant, task, judge)
        if key not in self._labels:
            if judge == MAJORITY:
                judges = [name for name in self.judges_of("refusal") if name != MAJORITY]
                self._labels[key] = majority({name: self.labels(variant, task, name) for name in judges})
            else:
                verdicts = self.verdicts(variant, task, judge)
                self._labels[key] = {verdict.id: verdict.label for verdict in verdicts}
        return self._labels[key]

    def groups(self, task: str) -> Mapping[str, int] | None:
        """Return the group of near-duplicates of each prompt of a task, by id; None where no prompt repeats another."""
        if task not in self._groups:
            self._groups[task] = self._found_groups(task)
        return self._groups[task]

    def _found_groups(self, task: str) -> Mapping[str, int] | None:
        # All variants were asked the same prompts.
        variant = next(name for name in self.evaluated if task in self.tasks_of(name))
        answers = self.answers(variant, task)
        if len(answers) < 2:
            return None
        groups = group_labels(len(answers), near_duplicates([answer.prompt for answer in answers])).tolist()
        if len(set(groups)) == len(answers):
            return None
        return {answer.id: group for answer, group in zip(answers, groups, strict=True)}

    def phrasing_rates(self, variant: str, task: str) -> Mapping[str, Rate]:
        """Compare a variant's refusals, by the primary judge, with the phrasings of training and those held out."""
        from harness.metrics.phrasing import phrasing_rates

        key = (variant, task)
        if key not in self._phrasings:
            labels = self.labels(variant, task, self.primary)
            refusals = [
                answer.response for answer in self.answers(variant, task) if labels[answer.id] == "refusal"
            ]
            known = self.phrasings()
            self._phrasings[key] = phrasing_rates(refusals, known.trained, known.held_out)
        return self._phrasings[key]
