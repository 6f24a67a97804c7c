"""Usage views: what each prompt gives each expert, counted in one way or another.

Every statistic of the expert table is a function of such a view, so that interval, p-value and stability of a score
are those of that score.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.routing.counts import Phase, RoutingCounts
from harness.routing.tokens import RoutedTokens, usage

if TYPE_CHECKING:
    import numpy.typing as npt


class Usage(NamedTuple):
    """`used` [N, L, E] and `weight` [N]; a group's rate is the sum of the one over the sum of the other."""

    used: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]

    def rates(self) -> npt.NDArray[np.float64]:
        """Return each prompt's own rate, [N, L, E]; NaN for a prompt without weight."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.weight > 0, self.used.T / self.weight, np.nan).T

    def pooled(self) -> npt.NDArray[np.float64]:
        """Return the rate of all prompts together, [L, E]."""
        rates: npt.NDArray[np.float64] = self.used.sum(axis=0) / self.weight.sum()
        return rates

    def of(self, rows: npt.NDArray[np.bool_]) -> Usage:
        """Return the view of some prompts."""
        return Usage(self.used[rows], self.weight[rows])

    def summed(self, groups: npt.NDArray[np.integer]) -> Usage:
        """Return the view with one row per group of prompts, [groups, L, E]; the pooled rate stays the same.

        Args:
            groups: [N], the group of each prompt.
        """
        _, place = np.unique(groups, return_inverse=True)
        used = np.zeros((int(place.max()) + 1, *self.used.shape[1:]))
        np.add.at(used, place, self.used)
        weight = np.zeros(len(used))
        np.add.at(weight, place, self.weight)
        return Usage(used, weight)


View = Callable[[RoutingCounts, Phase], Usage]


def by_token(counts: RoutingCounts, phase: Phase) -> Usage:
    """Each token counts once: the guide's frequency, in which long answers weigh more."""
    used, tokens = counts.of(phase)
    return Usage(used.astype(np.float64), tokens.astype(np.float64))


def by_gate(counts: RoutingCounts, phase: Phase) -> Usage:
    """Each token counts by the gate weight that the expert got from it."""
    return Usage(counts.mass_of(phase), counts.of(phase)[1].astype(np.float64))


def by_prompt(counts: RoutingCounts, phase: Phase) -> Usage:
    """Each prompt counts once, however long it or its answer is."""
    return _each_once(by_token(counts, phase))


def by_presence(counts: RoutingCounts, phase: Phase) -> Usage:
    """Each prompt counts once, by whether any of its tokens went to the expert."""
    used, tokens = counts.of(phase)
    return Usage((used > 0).astype(np.float64), (tokens > 0).astype(np.float64))


def by_cut_answer(tokens: RoutedTokens, n_experts: int, cut: int) -> Usage:
    """Each prompt counts once, by the first `cut` tokens of its answer alone."""
    places = tokens.answer_places
    inside = (places >= 0) & (places < cut)
    weight = np.bincount(tokens.samples[inside], minlength=len(tokens.ids))
    used = usage(tokens, n_experts, inside)
    return _each_once(Usage(used.astype(np.float64), weight.astype(np.float64)))


def _each_once(view: Usage) -> Usage:
    return Usage(np.nan_to_num(view.rates()), (view.weight > 0).astype(np.float64))
