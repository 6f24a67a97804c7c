"""A seeded sample of benchmarks/fault_campaign.py, in a process of its own: forks must find no threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def campaign(tmp_path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    """Do a share of a campaign; returns the outcome of each case."""

    def run(group: str, share: float, seed: int) -> dict[str, dict[str, Any]]:
        output = tmp_path / "faults.json"
        command = [
            sys.executable,
            str(REPOSITORY / "benchmarks" / "fault_campaign.py"),
            str(tmp_path / "work"),
        ]
        command += ["--only", group, "--share", str(share), "--seed", str(seed), "--output", str(output)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        assert output.is_file(), done.stderr[-2000:]
        outcomes: dict[str, dict[str, Any]] = json.loads(output.read_text())[group]
        assert done.returncode == any("fault" in outcome for outcome in outcomes.values()), done.stderr[
            -2000:
        ]
        return outcomes

    return run
