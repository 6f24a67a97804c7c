"""The inputs of a run's figures: answers, labels, judges and near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.base.fingerprint import fingerprint
from harness.base.schema import read_jsonl_as
from harness.data.duplicates import groups_where_repeated, near_duplicates_of
from harness.judges.base import Quantity
from harness.judges.card import Card, read_card
from harness.metrics.agreement import majority
from harness.metrics.phrasing import phrasing_rates
from harness.runs.records import OwnLabel
from harness.runs.run import Run

if TYPE_CHECKING:
    from harness.metrics.rates import AnyLabel, Outcomes, Prompts, Rate
    from harness.runs.rows import Kind

QUANTITIES: tuple[Quantity, ...] = ("refusal", "harmfulness")
MAJORITY = "majority"
"""The name of a judge whose label is the one that most judges of refusal give."""
_FEWEST_OF_A_MAJORITY = 3
NEAR = 0.5
"""The cosine from which on a prompt is near one that was trained on."""


class Evidence(Run):
    """The files of a run that figures are made from, each read once."""

    def require_whole(self) -> None:
        """Check that everything to measure is there.

        Raises:
            BadInputError: run.json lacks what figures need, or a variant was not evaluated to its end.
        """
        for field in ("variants", "asked", "judges"):
            if not getattr(self.record, field):
                raise BadInputError(
                    f"{self.layout.run}: {field}: missing; running its command again on this folder writes it"
                )
        missing = [name for name in self.record.variants if name not in self.record.evaluated]
        if missing:
            raise BadInputError(
                f"{self.path}: the run is not finished: '{missing[0]}' was not evaluated; run its command again"
            )

    @cached_property
    def primary(self) -> str:
        """The primary judge."""
        return next(iter(self.record.judges))

    def card(self, judge: str) -> Card | None:
        """Return a judge's card as the run keeps it; None where the judge was never measured."""
        path = self.layout.card(judge)
        return self._once(path, lambda: read_card(path) if path.is_file() else None)

    def own_labels(self, quantity: Quantity) -> list[OwnLabel]:
        """Return people's labels of the run's own answers; none where nobody labelled any."""
        path = self.layout.labels if quantity == "refusal" else self.layout.labels_of_harm
        return self._once(path, lambda: read_jsonl_as(path, OwnLabel) if path.is_file() else [])

    def primary_of(self, quantity: Quantity) -> str | None:
        """Return the primary judge of a quantity; None where no judge measures it."""
        return next(iter(self.named_judges(quantity)), None)

    def named_judges(self, quantity: Quantity) -> list[str]:
        """Return the judges of a quantity, the primary one first."""
        return [name for name, judge in self.record.judges.items() if judge.measures == quantity]

    def judges_of(self, quantity: Quantity) -> list[str]:
        """Return the judges of a quantity, the primary one first; three or more of refusal also have a majority."""
        named = self.named_judges(quantity)
        has_majority = quantity == "refusal" and len(named) >= _FEWEST_OF_A_MAJORITY
        return [*named, MAJORITY] if has_majority else named

    def tasks_of(self, variant: str) -> dict[str, Kind]:
        """Return the kind of each prompt task that a variant answered; none of a skipped one."""
        evaluated = self.record.evaluated[variant]
        if evaluated.skipped is not None:
            return {}
        asked = self.record.asked
        return {
            task: asked[task].kind for task in asked if evaluated.tasks is None or task in evaluated.tasks
        }

    def labels(self, variant: str, task: str, judge: str) -> Mapping[str, AnyLabel | None]:
        """Return a judge's label of each answer by the answer's id, None where it is unscored."""

        def labels() -> Mapping[str, AnyLabel | None]:
            if judge == MAJORITY:
                return majority(
                    {name: self.labels(variant, task, name) for name in self.named_judges("refusal")}
                )
            return {verdict.id: verdict.label for verdict in self.verdicts(variant, task, judge)}

        return self._once(("labels", variant, task, judge), labels)

    def outcomes(self, variant: str, task: str, judge: str, wanted: AnyLabel) -> Outcomes:
        """Return whether each answer has a label by the answer's id, None where it is unscored."""
        labels = self.labels(variant, task, judge)
        return {id: None if label is None else label == wanted for id, label in labels.items()}

    def responses(self, variant: str, task: str) -> Mapping[str, str]:
        """Return the text of each answer by the answer's id."""

        def texts() -> Mapping[str, str]:
            return {answer.id: answer.response for answer in self.answers(variant, task)}

        return self._once(("responses", variant, task), texts)

    def prompts(self, variant: str, task: str) -> Prompts | None:
        """Return the id of the prompt behind each answer, by the answer's id; None where a prompt has one answer."""

        def prompts() -> Prompts | None:
            answers = self.answers(variant, task)
            is_sampled = any(answer.number is not None for answer in answers)
            return {answer.id: answer.prompt_id for answer in answers} if is_sampled else None

        return self._once(("prompts", variant, task), prompts)

    def groups(self, task: str, variant: str) -> Mapping[str, int] | None:
        """Return the group of near-duplicates that each answer's prompt is in, by the answer's id; None without any.

        Args:
            task: the task.
            variant: one that answered it.
        """
        groups = self.prompt_groups(task, variant)
        prompts = self.prompts(self._first_asked(task, variant), task)
        return groups if groups is None or prompts is None else {id: groups[prompts[id]] for id in prompts}

    def prompt_groups(self, task: str, variant: str) -> Mapping[str, int] | None:
        """Return the group of near-duplicates of each prompt of a task, by id; None where all prompts differ.

        Args:
            task: the task.
            variant: one that answered it. The groups are those of the first one that did: a draw may have been asked
                fewer prompts.
        """
        return self._once(("groups", task), lambda: self._groups(task, variant))

    def _first_asked(self, task: str, variant: str) -> str:
        # Runs of earlier versions do not record who was evaluated.
        names = [*self.record.evaluated, variant]
        return next(name for name in names if self.layout.variant(name).responses(task).is_file())

    def _groups(self, task: str, variant: str) -> Mapping[str, int] | None:
        answers = self.answers(self._first_asked(task, variant), task)
        return groups_where_repeated({answer.prompt_id: answer.prompt for answer in answers})

    def seed_of(self, task: str | None) -> int:
        """Return the seed that draws one member of each group of a task's near-duplicates."""
        return int(fingerprint(["one per group", self.record.seeds.get("splits", 0), task])[:8], 16)

    def mean_use_share(self, draws: Sequence[str]) -> float | None:
        """Return how much draws' experts are used, as a share of how much the selection's are, on average.

        None without a draw, or where one's use is not known.
        """
        chosen = [self.selection(draw) for draw in draws]
        shares = [each.use_share for each in chosen if each is not None and each.use_share is not None]
        return fmean(shares) if shares and len(shares) == len(chosen) else None

    def near_training(self, task: str) -> Mapping[str, bool] | None:
        """Return whether each answer's prompt is near a harmful one that was trained on, by id; None without training.

        Near is a cosine of `NEAR` or more.
        """
        return self._once(("near training", task), lambda: self._near_training(task))

    def _near_training(self, task: str) -> Mapping[str, bool] | None:
        trained = list(dict.fromkeys(row.prompt for row in self.examples() or [] if row.aim != "retain"))
        answers = self.answers(self._who_answered(task), task)
        if not trained or not answers:
            return None
        near = near_duplicates_of([answer.prompt for answer in answers], trained, NEAR).tolist()
        return dict(zip((answer.id for answer in answers), near, strict=True))

    def _who_answered(self, task: str) -> str:
        """Return a variant that answered a task; all were asked the same prompts."""
        return next(name for name in self.record.evaluated if task in self.tasks_of(name))

    def phrasing_rates(self, variant: str, task: str) -> Mapping[str, Rate]:
        """Compare a variant's refusals, by the primary judge, with the phrasings of training and those held out."""

        def rates() -> Mapping[str, Rate]:
            labels, answers = self.labels(variant, task, self.primary), self.answers(variant, task)
            refusals = [answer for answer in answers if labels[answer.id] == "refusal"]
            prompts, groups = self.prompts(variant, task), self.groups(task, variant)
            of_prompts = None if prompts is None else [prompts[answer.id] for answer in refusals]
            of_groups = None if groups is None else [groups[answer.id] for answer in refusals]
            known, texts = self.phrasings(), [answer.response for answer in refusals]
            return phrasing_rates(texts, known.trained, known.held_out, of_prompts, of_groups)

        return self._once(("phrasings", variant, task), rates)
