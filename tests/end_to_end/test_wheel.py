"""The wheel carries everything that a run needs, and works from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    result = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if result.returncode and "No matching distribution found for hatchling" in result.stdout + result.stderr:
        pytest.skip("no package index to take hatchling from")
    assert result.returncode == 0, result.stderr[-2000:]
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def harness(unpacked: Path, place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_wheel_carries_code_content_and_the_demo_model(wheel):
    with zipfile.ZipFile(wheel) as archive:
        carried = set(archive.namelist())
    for folder in ("tasks", "baselines", "reports"):
        ours = {
            f"harness/_content/{path.relative_to(REPOSITORY).as_posix()}"
            for path in (REPOSITORY / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert ours
        assert ours <= carried
    for name in (
        *("py.typed", "cli/main.py", "data/refusals.txt", "zoo/demo_world.yaml", "models/presets/demo.yaml"),
        *("zoo/calibration_texts.yaml", "zoo/smol_notice.md", "models/demo/README.md"),
        *("models/demo/model.safetensors", "models/demo/tokenizer.json", "models/demo/chat_template.jinja"),
    ):
        assert f"harness/{name}" in carried
    assert not [name for name in carried if name.startswith(("tests/", "docs/")) or name.endswith(".pyc")]


def test_listing_works_from_anywhere(unpacked, tmp_path):
    result = harness(unpacked, tmp_path, "tasks", "list", "--json")
    assert result.returncode == 0, result.stderr
    assert {"demo_harmful", "advbench", "demo_facts"} <= {row["name"] for row in json.loads(result.stdout)}
    assert list(tmp_path.iterdir()) == []


def test_a_small_run_works_from_anywhere(unpacked, tmp_path):
    flags = [
        "--limit",
        "4",
        "--set",
        "training.max_steps=1",
        "--capability-limit",
        "2",
        "--baselines",
        "none",
    ]
    result = harness(unpacked, tmp_path, "run", *flags, "--max-new-tokens", "4", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["variants"]["unsafe_experts"]["frozen_unchanged"] is True
    assert (tmp_path / "runs/demo-unsafe_experts-seed0/report.html").is_file()
