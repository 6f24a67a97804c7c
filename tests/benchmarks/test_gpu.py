"""The script that measures on a GPU runs at a tiny shape on a CPU, and what it writes can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_training_and_capture_write_their_figures(tmp_path):
    found = subprocess.run(
        [sys.executable, SCRIPT, "--short", "--device", "cpu", "--shape", "tiny", "--output", tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"training.json", "capture.json"}
    training, capture = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("training", "capture")
    )
    assert training["finished"]
    assert {row["variant"] for row in training["rows"]} == {"frozen", "bank", "bank, compiled", "lora"}
    for row in training["rows"]:
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["peak_over_weights"] > 1
        assert row["tokens_per_second"] > 0
    floor = next(row for row in training["rows"] if row["variant"] == "frozen")
    assert floor["ratio"] == 1
    assert [row["kind"] for row in capture["rows"]] == ["prefill", "decode", "prefill, recording alone"]
    assert all(row["ratio"] > 0 for row in capture["rows"])
    assert "| 2x16 | bank, compiled |" in found.stdout


def test_what_a_gpu_machine_lacks_is_not_imported():
    """It has torch and transformers, and none of these."""
    blocked = """
import sys
for name in ("pydantic", "datasets", "lm_eval", "vllm", "nltk"):
    sys.modules[name] = None
sys.path.insert(0, "benchmarks")
import gpu
from harness.models.decoding import greedy
from harness.models.moe import find_moe
from harness.models.unserved import refused
"""
    done = subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, check=False, cwd=SCRIPT.parents[1]
    )
    assert done.returncode == 0, done.stderr
