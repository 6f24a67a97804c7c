"""A gates file at hand, and a run folder that a test may change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.files import read_jsonl, write_jsonl
from harness.report.write import write_measured
from harness.runs.run_folder import RunFolder


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run."""
    return shutil.copytree(small_run, tmp_path / "run")


@pytest.fixture
def gates(tmp_path: Path) -> Callable[..., Path]:
    """Write a gates file."""

    def write(*rows: dict[str, Any], name: str = "gates.yaml", **settings: Any) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump({**settings, "gates": list(rows)}, sort_keys=False))
        return path

    return write


def relabel(run, labels, variant="unsafe_experts", task="demo_harmful"):
    """Have the judge say something else of a variant's answers, and measure the run anew."""
    path = run / f"variants/{variant}/verdicts/{task}.builtin.jsonl"
    rows = read_jsonl(path)
    for row, label in zip(rows, labels, strict=False):
        row |= {"label": label, "reason": "empty answer" if label is None else None}
    write_jsonl(path, rows)
    write_measured(RunFolder(run))
