"""The inputs of a run's figures: answers, labels, judges and near-duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.base.fingerprint import fingerprint
from harness.data.duplicates import group_labels, near_duplicates
from harness.judges.base import Quantity
from harness.judges.card import Card, read_card
from harness.metrics.agreement import majority
from harness.metrics.phrasing import phrasing_rates
from harness.runs.run import Run

if TYPE_CHECKING:
    from harness.metrics.rates import AnyLabel, Rate
    from harness.runs.rows import Kind

QUANTITIES: tuple[Quantity, ...] = ("refusal", "harmfulness")
MAJORITY = "majority"
"""The name of a judge whose label is the one that most judges of refusal give."""
_FEWEST_OF_A_MAJORITY = 3


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
        if self.record.evaluated[variant].skipped is not None:
            return {}
        return {task: asked.kind for task, asked in self.record.asked.items()}

    def labels(self, variant: str, task: str, judge: str) -> Mapping[str, AnyLabel | None]:
        """Return a judge's label of each answer by the prompt's id, None where it is unscored."""

        def labels() -> Mapping[str, AnyLabel | None]:
            if judge == MAJORITY:
                return majority(
                    {name: self.labels(variant, task, name) for name in self.named_judges("refusal")}
                )
            return {verdict.id: verdict.label for verdict in self.verdicts(variant, task, judge)}

        return self._once(("labels", variant, task, judge), labels)

    def groups(self, task: str, variant: str) -> Mapping[str, int] | None:
        """Return the group of near-duplicates of each prompt of a task, by id; None where all prompts differ.

        Args:
            task: the task.
            variant: one that answered it. The groups are those of the first one that did: a draw may have been asked
                fewer prompts.
        """
        return self._once(("groups", task), lambda: self._groups(task, variant))

    def _groups(self, task: str, variant: str) -> Mapping[str, int] | None:
        # Runs of earlier versions do not record who was evaluated.
        names = [*self.record.evaluated, variant]
        variant = next(name for name in names if self.layout.variant(name).responses(task).is_file())
        answers = self.answers(variant, task)
        if len(answers) < 2:
            return None
        groups = group_labels(len(answers), near_duplicates([answer.prompt for answer in answers])).tolist()
        if len(set(groups)) == len(answers):
            return None
        return {answer.id: group for answer, group in zip(answers, groups, strict=True)}

    def seed_of(self, task: str | None) -> int:
        """Return the seed that draws one member of each group of a task's near-duplicates."""
        return int(fingerprint(["one per group", self.record.seeds.get("splits", 0), task])[:8], 16)

    def use_share(self, variant: str) -> float | None:
        """Return how much a variant's experts are used, as a share of how much the intervention's are.

        Use is a_safe_n + a_unsafe_n in the phase that was scored, summed over the experts. None where the run does not
        say.
        """
        own, drawn = self.selection(str(self.record.intervention)), self.selection(variant)
        if own is None or drawn is None or not self.layout.experts.is_file():
            return None
        use = self._once(("use", own.phase), lambda: self._use(str(own.phase)))
        if not {*own.experts, *drawn.experts} <= use.keys():
            return None
        total = sum(use[expert] for expert in own.experts)
        return sum(use[expert] for expert in drawn.experts) / total if total > 0 else None

    def mean_use_share(self, draws: Sequence[str]) -> float | None:
        """Return the draws' mean `use_share`; None without a draw, or where one is not known."""
        shares = [share for draw in draws if (share := self.use_share(draw)) is not None]
        return fmean(shares) if shares and len(shares) == len(draws) else None

    def _use(self, phase: str) -> dict[tuple[int, int], float]:
        table = self.experts()
        rows = table[table["phase"] == phase]
        keys = zip(rows["layer"].tolist(), rows["expert"].tolist(), strict=True)
        return dict(zip(keys, (rows["a_safe_n"] + rows["a_unsafe_n"]).tolist(), strict=True))

    def phrasing_rates(self, variant: str, task: str) -> Mapping[str, Rate]:
        """Compare a variant's refusals, by the primary judge, with the phrasings of training and those held out."""

        def rates() -> Mapping[str, Rate]:
            labels, answers = self.labels(variant, task, self.primary), self.answers(variant, task)
            refusals = [answer.response for answer in answers if labels[answer.id] == "refusal"]
            known = self.phrasings()
            return phrasing_rates(refusals, known.trained, known.held_out)

        return self._once(("phrasings", variant, task), rates)
