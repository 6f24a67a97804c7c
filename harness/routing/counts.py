"""Routing counts: how often each prompt's tokens went to each expert, phase by phase.

Phases: `prompt` and `generation` share out the routed tokens. `reasoning` is the part of the generation that comes
before the answer, with the markers around it; the rest is the `answer`, which is all of the generation where a model
does not think. `decision` is a window over the last few tokens before the answer and its first few, where refusing or
complying is decided; it is empty where an answer never began. `all` is prompt and generation together. The last sampled
token is never routed, so a generation of G tokens has G - 1 routed ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.base.errors import BadInputError, HarnessError
from harness.routing.phases import Phase as Phase
from harness.routing.phases import Record as Record

if TYPE_CHECKING:
    import numpy.typing as npt

STORED_PHASES: tuple[Phase, ...] = ("prompt", "generation", "decision", "reasoning")
PHASES: tuple[Phase, ...] = ("prompt", "generation", "all", "decision", "reasoning", "answer")
# The others are sums and differences of stored ones.
_PARTS: dict[Phase, dict[Phase, int]] = {
    "all": {"prompt": 1, "generation": 1},
    "answer": {"generation": 1, "reasoning": -1},
}
DECISION_WINDOW = 4


@dataclass(frozen=True)
class RoutingCounts:
    """Counts of a task's prompts.

    Attributes:
        ids: the prompts, N of them.
        layers: true indices of the L MoE layers.
        experts_per_token: k.
        counts: int32 [N, stored phases, L, E], routed tokens of the phase that went to the expert; the last phase may
            be left out where no answer had reasoning.
        tokens: int32 [N, stored phases], routed tokens of the phase.
        mass: float32 like `counts`, the gate weights that the expert got from those tokens, summed; None where the
            counts come from elsewhere than capture.
    """

    ids: tuple[str, ...]
    layers: tuple[int, ...]
    experts_per_token: int
    counts: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]
    mass: npt.NDArray[np.float32] | None = None

    def of(self, phase: Phase) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the counts [N, L, E] and tokens [N] of a phase."""
        return _total(self.counts, phase, np.int64), _total(self.tokens, phase, np.int64)

    @property
    def stored(self) -> tuple[Phase, ...]:
        """The stored phases that have tokens of their own: all, or all but the last where no answer had reasoning."""
        return STORED_PHASES if self.tokens[:, len(STORED_PHASES) - 1 :].any() else STORED_PHASES[:-1]

    def mass_of(self, phase: Phase) -> npt.NDArray[np.float64]:
        """Return the gate mass of a phase, [N, L, E].

        Raises:
            BadInputError: these counts have none.
        """
        if self.mass is None:
            raise BadInputError("these routing counts hold no gate weights: capture again")
        return _total(self.mass, phase, np.float64)

    def check(self, where: str) -> None:
        """Prove that no routing was lost: every layer's counts sum to tokens times k.

        Raises:
            HarnessError: names the first prompt and layer where they do not.
        """
        expected = self.tokens[:, :, None] * self.experts_per_token
        wrong = np.argwhere(self.counts.sum(axis=-1) != expected)
        if len(wrong):
            sample, phase, layer = wrong[0]
            raise HarnessError(
                f"{where}: prompt '{self.ids[sample]}' has {self.counts[sample, phase, layer].sum()} routings in layer "
                f"{self.layers[layer]} ({STORED_PHASES[phase]}), expected {expected[sample, phase, 0]}"
            )


def _total(values: npt.NDArray[Any], phase: Phase, kind: type[Any]) -> npt.NDArray[Any]:
    """Return the values of a phase, [N, ...], from those of the stored ones, [N, stored phases, ...]."""
    parts = _PARTS.get(phase, {phase: 1})
    total = np.zeros((len(values), *values.shape[2:]), dtype=kind)
    for part, sign in parts.items():
        place = STORED_PHASES.index(part)
        if place < values.shape[1]:
            total += sign * values[:, place].astype(kind)
    return total


def join(parts: Sequence[RoutingCounts]) -> RoutingCounts:
    """Put the counts of several batches or tasks one after another."""
    first = parts[0]
    if len({(part.layers, part.experts_per_token, part.counts.shape[2:]) for part in parts}) > 1:
        raise BadInputError("routing counts of different models cannot be joined")
    masses = [part.mass for part in parts if part.mass is not None]
    return RoutingCounts(
        ids=tuple(name for part in parts for name in part.ids),
        layers=first.layers,
        experts_per_token=first.experts_per_token,
        counts=_stacked([part.counts for part in parts]),
        tokens=_stacked([part.tokens for part in parts]),
        mass=_stacked(masses) if len(masses) == len(parts) else None,
    )


def _stacked(values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Put arrays [N, stored phases, ...] one after another; a phase that was left out has no tokens."""
    phases = max(each.shape[1] for each in values)
    return np.concatenate(
        [np.pad(each, [(0, 0), (0, phases - each.shape[1]), *[(0, 0)] * (each.ndim - 2)]) for each in values]
    )


def summed(counts: RoutingCounts, prompts: Mapping[str, str]) -> RoutingCounts:
    """Add the counts of several answers to a prompt.

    Args:
        counts: of answers.
        prompts: the prompt of each answer, by the answer's id.
    """
    ids = tuple(dict.fromkeys(prompts[id] for id in counts.ids))
    place = {prompt: i for i, prompt in enumerate(ids)}
    rows = [place[prompts[id]] for id in counts.ids]

    def added(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        total = np.zeros((len(ids), *values.shape[1:]), dtype=values.dtype)
        np.add.at(total, rows, values)
        return total

    mass = None if counts.mass is None else added(counts.mass)
    return replace(counts, ids=ids, counts=added(counts.counts), tokens=added(counts.tokens), mass=mass)


def reorder(counts: RoutingCounts, ids: Sequence[str]) -> RoutingCounts:
    """Return the same counts in the order of `ids`."""
    position = {name: i for i, name in enumerate(counts.ids)}
    order = [position[name] for name in ids]
    return replace(
        counts,
        ids=tuple(ids),
        counts=counts.counts[order],
        tokens=counts.tokens[order],
        mass=None if counts.mass is None else counts.mass[order],
    )
