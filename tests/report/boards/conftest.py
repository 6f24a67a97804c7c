"""Finished runs by the hundred: one real run's small files, with another seed, model or figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.base.files import read_json, write_json
from harness.runs.run_folder import RunFolder


def _is_changed(row: dict[str, Any]) -> bool:
    wanted = ("unsafe_experts", "demo_harmful", "refusal_rate")
    return (row["variant"], row["task"], row["metric"]) == wanted


@pytest.fixture(scope="session")
def like(small_run: Path) -> Callable[..., Path]:
    """Write a run folder like the small run's, without what no leaderboard reads."""
    kept = {name: read_json(small_run / name) for name in ("summary.json", "run.json", "splits.json")}

    def write(
        folder: Path,
        seed: int = 0,
        model: str = "demo",
        refused: int = 6,
        judge: str = "builtin",
        settings: dict[str, Any] | None = None,
        margins: dict[str, Any] | None = None,
    ) -> Path:
        summary, run = (dict(kept[name]) for name in ("summary.json", "run.json"))
        summary |= {
            "run_id": folder.name,
            "model": {**summary["model"], "name": model, "fingerprint": model.ljust(64, "0")},
        }
        value = refused / 12
        changed = {"value": value, "low": max(0, value - 0.1), "high": min(1, value + 0.1)}
        figures = [{**row, "judge": judge if row["judge"] else None} for row in summary["measurements"]]
        summary |= {
            "judge": judge,
            "measurements": [row | (changed if _is_changed(row) else {}) for row in figures],
            "comparisons": [
                {**row, "judge": judge if row["judge"] else None} for row in summary["comparisons"]
            ],
        }
        run["config"] = {**run["config"], "seed": seed}
        run["config"]["selection"] = {**run["config"]["selection"], **(settings or {})}
        run["config"]["margins"] = {**run["config"].get("margins", {}), **(margins or {})}
        folder.mkdir(parents=True)
        write_json(folder / "summary.json", summary)
        write_json(folder / "run.json", run)
        write_json(folder / "splits.json", kept["splits.json"])
        RunFolder(folder).write_manifest()
        return folder

    return write
