"""Everything that `harness doctor` finds out, as one object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.doctor import at_hand, machine


def check(
    model: str | None = None,
    data_dirs: Sequence[Path] = (),
    include: Sequence[Path] = (),
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Return what a run finds here; `problems` are what stops one.

    Args:
        model: also what this model wants; no weights are loaded or downloaded.
        data_dirs: folders with copies of public sets.
        include: folders with more tasks.
        trust_remote_code: let the checkpoint's own Python code run.

    Raises:
        BadInputError: a folder or the model is not there.
    """
    from harness.pipeline.session import package_versions

    data = at_hand.tasks(data_dirs, include)
    problems = list(machine.broken_requirements())
    device, hub = machine.device(), machine.hub()
    found: dict[str, Any] = {
        "versions": package_versions(),
        "extras": machine.extras(),
        "device": device,
        "engines": machine.engines(device["kind"]),
        "hub": hub,
        "data": data,
        "judges": at_hand.judges(include),
        "model": None,
    }
    if model is not None:
        from harness.doctor.model import examine
        from harness.models.load import quiet_transformers

        quiet_transformers()
        found["model"] = examine(model, data, data_dirs, trust_remote_code, hub["state"] == "reachable")
        problems += found["model"]["problems"]
    return found | {"problems": problems}
