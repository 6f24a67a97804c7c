"""Random draws of experts that are matched with a selection, and the experts that are used most."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.experts.select import LEAST_USED, ExpertSelection, Match
from harness.experts.swaps import walk
from harness.experts.use_band import UseBand, log10_choices, use_band
from harness.models.moe import Expert

if TYPE_CHECKING:
    import pandas as pd


class Sets(NamedTuple):
    """How many sets a draw is one of."""

    log10: float
    is_counted: bool


def use_of(table: pd.DataFrame, phase: str) -> dict[Expert, float]:
    """Return the use of each expert: its share of a phase's tokens on safe prompts plus that on unsafe ones."""
    rows = table[table["phase"] == phase]
    uses = (rows["a_safe_n"] + rows["a_unsafe_n"]).tolist()
    return dict(zip(map(Expert, rows["layer"].tolist(), rows["expert"].tolist()), uses, strict=True))


@dataclass(frozen=True, eq=False)
class Selected:
    """The experts that a run selected, and what other choices are matched with them by.

    Attributes:
        selection: the experts.
        use: of each expert of the model, as `use_of` returns it.
        seed: of the walk that all draws start from.
    """

    selection: ExpertSelection
    use: dict[Expert, float]
    seed: int

    def use_share(self, experts: Iterable[Expert]) -> float | None:
        """Return the use of some experts in all, as a share of the selection's; None where that is 0."""
        return self._total(experts) / self._target if self._target else None

    def sets(self, match: Match) -> Sets:
        """Return how many sets a draw is one of."""
        if match == "use":
            return Sets(self._band.log10_sets, self._band.is_counted)
        return Sets(log10_choices(self._n_experts, self._chosen), True)

    def draw(self, match: Match, seed: int) -> ExpertSelection:
        """Draw as many experts per layer as are selected; overlap with the selection is allowed.

        Args:
            match: "use" draws uniformly among the sets whose use is about the selection's, "layer" among all.
            seed: of the draw.
        """
        if match == "use":
            layers = list(self.selection.by_layer())
            places = (divmod(place, self._n_experts) for place in self._walk(self._hub, seed))
            drawn = [Expert(layers[row], number) for row, number in places]
            return self._named("random", drawn, match)
        generator = np.random.default_rng(seed)
        drawn = [
            Expert(layer, int(expert))
            for layer, experts in self.selection.by_layer().items()
            for expert in generator.choice(self._n_experts, size=len(experts), replace=False)
        ]
        return self._named("random", drawn, match)

    def most_used(self) -> ExpertSelection:
        """Return, per layer, as many experts as are selected, those that are used most."""
        popular = [
            expert
            for layer, experts in self.selection.by_layer().items()
            for expert in sorted(
                (Expert(layer, number) for number in range(self._n_experts)),
                key=lambda expert: (-self.use[expert], expert),
            )[: len(experts)]
        ]
        return self._named("most used", popular)

    def least_used(self, share: float) -> ExpertSelection:
        """Return, per layer, this share of all experts (rounded down), those that are used least."""
        by_layer: dict[int, list[Expert]] = {}
        for expert in sorted(self.use, key=lambda expert: (self.use[expert], expert)):
            by_layer.setdefault(expert.layer, []).append(expert)
        rare = [expert for experts in by_layer.values() for expert in experts[: int(share * len(experts))]]
        return self._named(LEAST_USED, rare)

    def beside(self, chosen: ExpertSelection) -> dict[str, Any]:
        """Return how other experts compare with the selection, as selection.json keeps it."""
        sets = self.sets(chosen.match) if chosen.match else None
        return {
            "overlap_with_selection": len({*chosen.experts} & {*self.selection.experts}),
            "use_share": self.use_share(chosen.experts),
            "match": chosen.match,
            "log10_sets": sets and sets.log10,
            "sets_are_counted": sets and sets.is_counted,
        }

    def _named(self, method: str, experts: Iterable[Expert], match: Match | None = None) -> ExpertSelection:
        return ExpertSelection(method, self.selection.phase, tuple(sorted(experts)), match)

    def _total(self, experts: Iterable[Expert]) -> float:
        return math.fsum(self.use[expert] for expert in experts)

    @cached_property
    def _target(self) -> float:
        return self._total(self.selection.experts)

    @cached_property
    def _n_experts(self) -> int:
        return 1 + max(expert.expert for expert in self.use)

    @cached_property
    def _chosen(self) -> list[int]:
        return [len(experts) for experts in self.selection.by_layer().values()]

    @cached_property
    def _band(self) -> UseBand:
        return use_band(self._uses, self._chosen, self._target)

    @cached_property
    def _uses(self) -> np.ndarray:
        """The use of the experts of the layers that the selection has experts in, [L, E]."""
        numbers = range(self._n_experts)
        return np.array(
            [[self.use[Expert(layer, i)] for i in numbers] for layer in self.selection.by_layer()]
        )

    @cached_property
    def _hub(self) -> list[int]:
        """Where every draw's walk starts: a walk from the selection, which is itself in the band.

        A walk is as likely backwards. So a selection that is itself a random set of the band and draws that set out
        from one hub are exchangeable however short the walks are (Besag and Clifford, Biometrika 76, 1989), and a test
        that counts how many draws do as well keeps its level.
        """
        rows = {layer: row for row, layer in enumerate(self.selection.by_layer())}
        selected = sorted(rows[layer] * self._n_experts + number for layer, number in self.selection.experts)
        return self._walk(selected, self.seed)

    def _walk(self, start: list[int], seed: int) -> list[int]:
        return walk(
            start, self._uses.ravel().tolist(), self._n_experts, self._band.low, self._band.high, seed
        )
