"""A training's state on disk, so that a killed training resumes and ends with the same delta.

One safetensors file holds the bank, AdamW's state, what was noted of gradients, the best state of early stopping and
the generator of random numbers; its header holds the log as JSON. It is renamed into place, so whatever moment a run is
killed at, a whole checkpoint is there or none.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from harness.base.files import write_whole
from harness.base.progress import say

if TYPE_CHECKING:
    from harness.training.adapter_bank import AdapterBank
    from harness.training.bank import ExpertBank

SECONDS_BETWEEN = 60.0
_HEADER = "harness"


@dataclass
class TrainingState:
    """Everything that changes while a bank is trained.

    Attributes:
        bank: the experts in training.
        optimizer: of their parameters.
        gradients: sum of the absolute gradients of each expert so far, [B], by layer.
        log: one row for each optimizer step taken.
        best: the bank's values at the best look of early stopping.
    """

    bank: ExpertBank | AdapterBank
    optimizer: torch.optim.Optimizer
    gradients: dict[int, torch.Tensor]
    log: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return len(self.log)


class Checkpoints:
    """Where a training is kept while it runs.

    Args:
        path: the file.
        key: fingerprint of the training; a checkpoint of another one is not read.
        every: optimizer steps between checkpoints; None for one per minute.
    """

    def __init__(self, path: Path, key: str, every: int | None = None) -> None:
        self.path = path
        self.key = key
        self.every = every
        self._last = time.monotonic()

    def settings(self) -> dict[str, Any]:
        """Return the arguments that another process makes this object with, as JSON."""
        return {"path": str(self.path.resolve()), "key": self.key, "every": self.every}

    def restore(self, state: TrainingState) -> None:
        """Bring a fresh state to where an earlier run of the same training was, if it left something.

        A file that is not as it was written is named and passed over.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return
        try:
            with safe_open(self.path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[_HEADER])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            is_whole = header["sha256"] == _digest(header["key"], header["log"], tensors)
        except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError):
            is_whole = False
        if not is_whole:
            say(f"{self.path} is not what the run wrote: training anew")
        elif header["key"] == self.key:
            _put(state, header["log"], tensors)

    def after_step(self, state: TrainingState) -> None:
        """Write a checkpoint where one is due."""
        elapsed = time.monotonic() - self._last
        due = elapsed >= SECONDS_BETWEEN if self.every is None else state.step % self.every == 0
        if due:
            self.write(state)

    def write(self, state: TrainingState) -> None:
        """Write a checkpoint."""
        from safetensors.torch import save_file

        tensors = {name: value.detach().cpu().contiguous() for name, value in _tensors(state)}
        digest = _digest(self.key, state.log, tensors)
        header = json.dumps({"key": self.key, "log": state.log, "sha256": digest})
        write_whole(
            self.path,
            lambda temporary: save_file(tensors, temporary, metadata={_HEADER: header}),
            sum(value.nbytes for value in tensors.values()),
        )
        self._last = time.monotonic()


def _digest(key: str, log: list[dict[str, Any]], tensors: dict[str, torch.Tensor]) -> str:
    """Return sha256 over all that a checkpoint holds."""
    digest = hashlib.sha256(json.dumps([key, log]).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _tensors(state: TrainingState) -> Iterator[tuple[str, torch.Tensor]]:
    named = state.bank.state()
    for (name, value), parameter in zip(named.items(), state.bank.parameters(), strict=True):
        yield f"bank.{name}", value
        for key, figure in state.optimizer.state.get(parameter, {}).items():
            yield f"{key}.{name}", figure
    for index, gradients in state.gradients.items():
        yield f"gradients.{index}", gradients
    for name, value in state.best.items():
        yield f"best.{name}", value
    yield "random", torch.get_rng_state()
    if torch.cuda.is_available():
        yield "random.cuda", torch.cuda.get_rng_state()


def _put(state: TrainingState, log: list[dict[str, Any]], tensors: dict[str, torch.Tensor]) -> None:
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = value
    state.bank.load_state(groups["bank"])
    named = state.bank.state()
    for (name, value), parameter in zip(named.items(), state.bank.parameters(), strict=True):
        # A parameter that no gradient has reached has no state; the number of steps stays on the host.
        if name in groups.get("step", {}):
            state.optimizer.state[parameter] = {
                "step": groups["step"][name],
                "exp_avg": groups["exp_avg"][name].to(value.device),
                "exp_avg_sq": groups["exp_avg_sq"][name].to(value.device),
            }
    state.best = {name: value.to(named[name].device) for name, value in groups.get("best", {}).items()}
    for index, gradients in state.gradients.items():
        gradients.copy_(groups["gradients"][str(index)])
    state.log = log
    torch.set_rng_state(groups["random"][""])
    if "cuda" in groups["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(groups["random"]["cuda"])
