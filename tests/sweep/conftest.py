"""What the sweep tests share: sweeps of runs that take seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sweeps import BASE


@pytest.fixture
def sweep_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a sweep file: `sweep_file(axes={"seed": [0, 1]})`."""

    def write(name: str = "sweep.yaml", **content: Any) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"base": BASE, **content}, sort_keys=False))
        return path

    return write
