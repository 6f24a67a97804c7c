"""What the parts of benchmarks/gpu.py share: a JSON file that grows row by row, a time budget, and alternated steps."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from capture import interval
from expert_training import synchronize

# A median's interval by order statistics covers 95 % from six pairs on; of fewer it is their range.
PAIRS = 20


class Part:
    """One part's results, written as a whole file whenever something is added.

    Args:
        path: of the JSON file.
        where: machine, versions, seeds.
        budget: seconds that the part may take; looked at between rows.
    """

    def __init__(self, path: Path, where: Mapping[str, Any], budget: float):
        self.path, self.started, self.budget = path, time.perf_counter(), budget
        self.result: dict[str, Any] = {
            "part": path.stem,
            **where,
            "budget": round(budget, 1),
            "finished": False,
        }
        self.result |= {"errors": [], "rows": []}
        self.write()

    @property
    def spent(self) -> float:
        """Seconds since the part began."""
        return time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds of its budget that are left."""
        return self.budget - self.spent

    def put(self, **facts: Any) -> None:
        """Set facts about the part as a whole."""
        self.result |= facts
        self.write()

    def row(self, **cells: Any) -> dict[str, Any]:
        """Add a row; it may be filled further, to be written with what comes next."""
        self.result["rows"].append(cells)
        self.write()
        return cells

    def error(self, what: str, error: BaseException) -> None:
        """Note that something failed."""
        self.result["errors"].append(f"{what}: {type(error).__name__}: {error}"[:2000])
        self.write()

    def write(self) -> None:
        """Write the file beside its place, then rename it."""
        self.result["seconds"] = round(self.spent, 1)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.result, indent=1) + "\n")
        temporary.replace(self.path)


def free_memory(device: torch.device) -> None:
    """Give what is no longer used back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def timed(device: torch.device, work: Callable[[], Any]) -> float:
    """Return the seconds that something takes, the device waited for."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def out_of_memory(error: BaseException) -> bool:
    """Say whether an exception, or one that led to it, is a device out of memory."""
    cause = error.__cause__
    return isinstance(error, torch.OutOfMemoryError) or (cause is not None and out_of_memory(cause))


def attempt(part: Part, what: str, row: dict[str, Any], work: Callable[[], Any]) -> Any:
    """Do something for a row; what does not fit becomes the row's note, what fails also an error of the part."""
    try:
        return work()
    except Exception as error:
        # Kept as text: the exception holds on to the frames, and so to the device's memory.
        if out_of_memory(error):
            row["note"] = "out of memory"
        else:
            row["note"] = f"failed: {type(error).__name__}"
            part.error(what, error)
    return None


def alternated(
    work: Mapping[str, Callable[[], float]],
    seconds: float,
    least: int = 3,
    most: int = PAIRS,
    after: Callable[[dict[str, list[float]]], None] = lambda taken: None,
) -> dict[str, list[float]]:
    """Time several things in turn, each once a round, in an order that turns from round to round.

    Args:
        work: by name; each returns its own seconds.
        seconds: no round begins that would end later.
        least: rounds that are run whatever they take.
        most: rounds at most.
        after: told what was measured so far, after each round.
    """
    taken: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    began, longest = time.perf_counter(), 0.0
    for number in range(most):
        started = time.perf_counter()
        if number >= least and started - began + longest > seconds:
            break
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned if number % 2 else reversed(turned):
            taken[name].append(work[name]())
        longest = max(longest, time.perf_counter() - started)
        after(taken)
    return taken


def compared(taken: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    """Return the median ratio of neighbouring runs and its interval, and the medians of both."""
    ratios = np.array(taken) / np.array(baseline)
    low, high = interval(ratios)
    return {
        "seconds": float(np.median(taken)),
        "baseline_seconds": float(np.median(baseline)),
        "ratio": float(np.median(ratios)),
        "low": low,
        "high": high,
        "pairs": len(ratios),
    }
