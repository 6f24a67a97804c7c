"""Routing counts: how often each prompt's tokens went to each expert, phase by phase.

Phases: `prompt` and `generation` share out the routed tokens; `decision` is a window over both, the last few
prompt tokens and the first few answer tokens, where refusing or complying is decided. `all`, prompt and
generation together, is computed on demand. The last sampled token of an answer is never routed, so an
answer of G tokens has G - 1 routed ones.
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

STORED_PHASES: tuple[Phase, ...] = ("prompt", "generation", "decision")
PHASES: tuple[Phase, ...] = ("prompt", "generation", "all", "decision")
DECISION_WINDOW = 4


@dataclass(frozen=True)
class RoutingCounts:
    """Counts of a task's prompts.

    Attributes:
        ids: the prompts, N of them.
        layers: true indices of the L MoE layers.
        experts_per_token: k.
        counts: int32 [N, stored phases, L, E], routed tokens of the phase that went to the expert.
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
        stored = _stored(phase)
        return (
            self.counts[:, stored].sum(axis=1, dtype=np.int64),
            self.tokens[:, stored].sum(axis=1, dtype=np.int64),
        )

    def mass_of(self, phase: Phase) -> npt.NDArray[np.float64]:
        """Return the gate mass of a phase, [N, L, E].

        Raises:
            BadInputError: these counts have none.
        """
        if self.mass is None:
            raise BadInputError("these routing counts hold no gate weights: capture again")
        mass: npt.NDArray[np.float64] = self.mass[:, _stored(phase)].sum(axis=1, dtype=np.float64)
        return mass

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


def _stored(phase: Phase) -> list[int]:
    """Return where the parts of a phase are among the stored ones."""
    parts = ("prompt", "generation") if phase == "all" else (phase,)
    return [STORED_PHASES.index(part) for part in parts]


def join(parts: Sequence[RoutingCounts]) -> RoutingCounts:
    """Put the counts of several batches or tasks one after another."""
    first = parts[0]
    if len({(part.layers, part.experts_per_token, part.counts.shape[1:]) for part in parts}) > 1:
        raise BadInputError("routing counts of different models cannot be joined")
    masses = [part.mass for part in parts if part.mass is not None]
    return RoutingCounts(
        ids=tuple(name for part in parts for name in part.ids),
        layers=first.layers,
        experts_per_token=first.experts_per_token,
        counts=np.concatenate([part.counts for part in parts]),
        tokens=np.concatenate([part.tokens for part in parts]),
        mass=np.concatenate(masses) if len(masses) == len(parts) else None,
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
