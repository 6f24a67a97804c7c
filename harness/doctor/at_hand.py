"""What is at hand without a download: the data of tasks, and the models of judges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import BadInputError

Where = Literal["shipped", "data folder", "cached", "hub", "hub, after a login", "missing"]
AT_HAND: tuple[Where, ...] = ("shipped", "data folder", "cached")


def tasks(data_dirs: Sequence[Path] = (), include: Sequence[Path] = ()) -> list[dict[str, Any]]:
    """Return where the data of each prompt task and capability task of ours would come from.

    `missing` has the first file that no `--data-dir` holds. Data are looked for, not read: `harness tasks check` reads
    them.

    Raises:
        BadInputError: a folder that is named is not there.
    """
    from harness.capability.tasks import find_data_file, list_capability_tasks
    from harness.data.task import list_tasks

    for folder in data_dirs:
        if not folder.is_dir():
            raise BadInputError(f"--data-dir: no folder {folder}")
    rows = []
    for spec in list_tasks(include):
        source = spec.source
        missing = next((file for file in source.files if find_data_file(file, data_dirs) is None), None)
        where: Where = "missing"
        if source.package_files:
            where = "shipped"
        elif source.files and missing is None:
            where = "data folder"
        elif any(find_data_file(file, data_dirs) for file in source.files):
            pass  # some of its files and not others: a run would refuse it
        elif source.hub is not None and is_cached(source.hub.path, "dataset"):
            where = "cached"
        elif source.hub is not None:
            where = "hub, after a login" if source.hub.gated else "hub"
        at_hand = where in AT_HAND
        rows.append(
            {"task": spec.name, "kind": spec.kind, "data": where, "missing": None if at_hand else missing}
        )
    for name, task in list_capability_tasks(include).items():
        file = task.missing_file(data_dirs)
        own: Where = "missing" if file else "data folder" if task.files() else "shipped"
        rows.append({"task": name, "kind": "capability", "data": own, "missing": file})
    return rows


def is_cached(repository: str, kind: Literal["model", "dataset"]) -> bool:
    """Say whether the hub's cache holds something of a repository."""
    from huggingface_hub import constants

    named = f"{kind}s--{repository.replace('/', '--')}"
    snapshots = Path(constants.HF_HUB_CACHE) / named / "snapshots"
    return snapshots.is_dir() and any(snapshots.iterdir())


def judges(include: Sequence[Path]) -> list[dict[str, Any]]:
    """Return each judge with what it still needs, such as a key or a checkpoint; None where it can judge now."""
    from harness.judges.classifier.judge import ModelJudge
    from harness.judges.find import list_judges

    rows = []
    for judge in list_judges(include):
        needs = None
        try:
            _ = judge.fingerprint
        except BadInputError as error:
            needs = str(error).partition(": ")[2] or str(error)
        else:
            if isinstance(judge, ModelJudge) and not _has_model(judge.preset.model):
                needs = f"{judge.preset.model} is not here: it comes from the hub"
        rows.append({"judge": judge.name, "measures": judge.measures, "needs": needs})
    return rows


def _has_model(name: str) -> bool:
    return Path(name).expanduser().is_dir() or is_cached(name, "model")
