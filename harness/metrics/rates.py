"""Rates: what share of the scored answers has a label, and how sure that is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Literal, NamedTuple, TypeVar

from harness.metrics.clustered import clustered_share
from harness.metrics.interval import Interval, wilson_ends

Label = Literal["refusal", "compliance"]
Harm = Literal["harmful", "harmless"]
AnyLabel = Label | Harm

T = TypeVar("T")

Outcomes = Mapping[str, bool | None]
"""Whether each sample counts towards a share, by its id; None where it could not be scored."""
Groups = Mapping[str, int]
"""The group of near-duplicates of each sample, by its id."""
Prompts = Mapping[str, str]
"""The prompt of each sample, by its id, where samples are several answers to a prompt.

Answers to one prompt are no independent evidence: the prompt is the cluster, within the group of its near-duplicates
where it has any.
"""


class Rate(NamedTuple):
    """A share of the scored samples with its 95 % interval, which is None when nothing was scored."""

    interval: Interval | None
    n: int
    scored: int
    unscored: int

    @property
    def value(self) -> float | None:
        """The share itself."""
        return None if self.interval is None else self.interval.value


def rate(outcomes: Outcomes, groups: Groups | None = None, prompts: Prompts | None = None) -> Rate:
    """Return the share of samples that count among those scored.

    Where all answers of each prompt agree, the interval is that of one answer per prompt.

    Args:
        outcomes: of every sample asked.
        groups: of near-duplicates, where there are any: the interval is over groups then, else it is Wilson's.
        prompts: of several answers each: the interval is over prompts then, or over groups of them.
    """
    scored = {id: outcome for id, outcome in outcomes.items() if outcome is not None}
    n, unscored = len(outcomes), len(outcomes) - len(scored)
    if not scored:
        return Rate(None, n, 0, unscored)
    if prompts is not None:
        answers = by_prompt(scored, prompts)
        if all(len(set(own)) == 1 for own in answers.values()) and len(set(map(len, answers.values()))) == 1:
            alike = {prompt: own[0] for prompt, own in answers.items()}
            of_prompts = None if groups is None else {prompts[id]: groups[id] for id in scored}
            return Rate(rate(alike, of_prompts).interval, n, len(scored), unscored)
    elif groups is None:
        return Rate(wilson(sum(scored.values()), len(scored)), n, len(scored), unscored)
    clusters: Mapping[str, Hashable] = groups or prompts or {}
    interval = clustered_share(list(scored.values()), [clusters[id] for id in scored])
    return Rate(interval, n, len(scored), unscored)


def by_prompt(answers: Mapping[str, T], prompts: Prompts) -> dict[str, list[T]]:
    """Return what is known of each answer, prompt by prompt."""
    gathered: dict[str, list[T]] = {}
    for id, known in answers.items():
        gathered.setdefault(prompts[id], []).append(known)
    return gathered


def at_least_once(outcomes: Outcomes, prompts: Prompts) -> dict[str, bool | None]:
    """Return whether an answer of each prompt counts; None where none does and one could not be scored."""
    return {
        prompt: True if True in own else None if None in own else False
        for prompt, own in by_prompt(outcomes, prompts).items()
    }


def worst_case(outcomes: Outcomes) -> tuple[float, float] | None:
    """Return the share over all samples with every unscored one counted out, then in; None where none was asked.

    The share with all verdicts lies between, whatever made samples unscored.
    """
    n, unscored = len(outcomes), sum(outcome is None for outcome in outcomes.values())
    successes = sum(outcome is True for outcome in outcomes.values())
    return (successes / n, (successes + unscored) / n) if n else None


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return a share of `n` > 0 with Wilson's interval."""
    from scipy.stats import norm

    share = successes / n
    low, high = wilson_ends(share, n, float(norm.isf((1 - level) / 2)))
    return Interval(value=share, low=float(low), high=float(high))
