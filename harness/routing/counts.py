"""Routing counts: how often each prompt's tokens went to each expert, phase by phase.

Phases: `prompt` and `generation` share out the routed tokens; `decision` is a window over both, the last few
prompt tokens and the first few answer tokens, where refusing or complying is decided. `all`, prompt and
generation together, is computed when asked for. The last sampled token of an answer is never routed, so an
answer of G tokens has G - 1 routed ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.errors import BadInputError, HarnessError
from harness.store.files import write_whole

if TYPE_CHECKING:
    import numpy.typing as npt

Phase = Literal["prompt", "generation", "all", "decision"]

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
    """

    ids: tuple[str, ...]
    layers: tuple[int, ...]
    experts_per_token: int
    counts: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]

    def of(self, phase: Phase) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the counts [N, L, E] and tokens [N] of a phase."""
        if phase == "all":
            (a, tokens_a), (b, tokens_b) = self.of("prompt"), self.of("generation")
            return a + b, tokens_a + tokens_b
        where = STORED_PHASES.index(phase)
        return self.counts[:, where].astype(np.int64), self.tokens[:, where].astype(np.int64)

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


def join(parts: Sequence[RoutingCounts]) -> RoutingCounts:
    """Put the counts of several batches or tasks behind one another."""
    first = parts[0]
    if len({(part.layers, part.experts_per_token, part.counts.shape[1:]) for part in parts}) > 1:
        raise BadInputError("routing counts of different models cannot be joined")
    return RoutingCounts(
        ids=tuple(name for part in parts for name in part.ids),
        layers=first.layers,
        experts_per_token=first.experts_per_token,
        counts=np.concatenate([part.counts for part in parts]),
        tokens=np.concatenate([part.tokens for part in parts]),
    )


def reorder(counts: RoutingCounts, ids: Sequence[str]) -> RoutingCounts:
    """Return the same counts in the order of `ids`."""
    position = {name: i for i, name in enumerate(counts.ids)}
    order = [position[name] for name in ids]
    return RoutingCounts(
        tuple(ids), counts.layers, counts.experts_per_token, counts.counts[order], counts.tokens[order]
    )


def save_counts(counts: RoutingCounts, path: Path) -> None:
    """Write counts as safetensors, with ids and layers in the file's metadata."""
    from safetensors.numpy import save_file

    # One entry: safetensors writes several in a random order, and equal counts should be equal files.
    header = {
        "harness": json.dumps(
            {
                "ids": counts.ids,
                "layers": counts.layers,
                "experts_per_token": counts.experts_per_token,
                "phases": STORED_PHASES,
            }
        )
    }
    # safetensors writes the buffer as it lies in memory: a transposed view would come back scrambled.
    tensors = {"counts": np.ascontiguousarray(counts.counts), "tokens": np.ascontiguousarray(counts.tokens)}
    write_whole(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def load_counts(path: Path) -> RoutingCounts:
    """Read counts and check them.

    Raises:
        BadInputError: the file is cut short or is not one of ours.
        HarnessError: its counts do not add up.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {})["harness"])
            counts, tokens = file.get_tensor("counts"), file.get_tensor("tokens")
        if tuple(header["phases"]) != STORED_PHASES:
            raise BadInputError(f"{path} has phases {header['phases']}, expected {list(STORED_PHASES)}")
        loaded = RoutingCounts(
            ids=tuple(header["ids"]),
            layers=tuple(header["layers"]),
            experts_per_token=header["experts_per_token"],
            counts=counts,
            tokens=tokens,
        )
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BadInputError(f"{path} is not a whole file of routing counts: {error}") from error
    loaded.check(str(path))
    return loaded
