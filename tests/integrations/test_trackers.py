"""`--track` with the trackers themselves, without network."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from harness.base.files import read_json, read_jsonl
from harness.runs.run import read_run

pytestmark = [pytest.mark.integrations, pytest.mark.slow]

FEW = ("--intervention", "unsafe_experts", "--baselines", "none", "--limit", "8")
RUN = ("run", *FEW, "--set", "training.max_steps=3", "--set", "capability.tasks=[]")
CAPTURE = ("capture", *FEW)
SECRET = "0123456789abcdef" * 2 + "01234567"


def tracked(place: Path, tracker: str, words: Sequence[str] = RUN, **env: str) -> tuple[Path, str]:
    """Do a small run in a process of its own, whose working directory and home are the test's."""
    try:
        importlib.metadata.version(tracker)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs {tracker}")
    run = place / "the run"
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words, "--track", tracker, "--output", str(run), "--json"],
        env={**os.environ, "HOME": str(place), "WANDB_API_KEY": SECRET, **env},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Standard output is the result alone.
    assert json.loads(done.stdout)
    assert SECRET not in done.stderr
    read_run(run).verify()
    return run, done.stderr


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(run / "variants/unsafe_experts/train.jsonl")]


def records_of_wandb(path: Path) -> Iterator[Any]:
    """Read a .wandb file: a header of 7 bytes, then LevelDB's log format, whose records are protocol buffers."""
    from wandb.proto import wandb_internal_pb2

    data, at, part = path.read_bytes(), 7, b""
    assert SECRET.encode() not in data
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            yield record


def values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_wandb_offline_holds_settings_losses_figures_tables_and_the_report(tmp_path):
    run, said = tracked(tmp_path, "wandb", WANDB_MODE="offline")
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert f"tracked by wandb: {path.parent}" in said
    records = list(records_of_wandb(path))
    (about,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    run_id = read_json(run / "run.json")["run_id"]
    assert (about.run_id, about.project, about.display_name) == (run_id, "moe-safety-harness", "the run")
    assert values(about.config.update)["training.max_steps"] == 3

    history = [values(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]
    assert [
        row["train/unsafe_experts/loss"] for row in history if "train/unsafe_experts/loss" in row
    ] == losses(run)
    (axis,) = [record.metric for record in records if record.WhichOneof("record_type") == "metric"]
    assert (axis.glob_name, axis.step_metric) == ("train/unsafe_experts/*", "train/unsafe_experts/step")
    assert "seconds/train unsafe_experts" in {name for row in history for name in row}

    summary: dict[str, Any] = {}
    for record in records:
        if record.WhichOneof("record_type") == "summary":
            summary |= values(record.summary.update)
    rate = read_run(run).summary.figure("unsafe_experts", "demo_harmful", "refusal_rate", "builtin")
    assert summary["refusal_rate/demo_harmful/builtin/unsafe_experts"] == rate.value
    assert {name.split("/")[0] for name in summary} >= {"leaderboard", "measurements"}
    artifacts = {r.artifact.type for r in records if r.WhichOneof("record_type") == "artifact"}
    assert "report" in artifacts
    assert [r.exit.exit_code for r in records if r.WhichOneof("record_type") == "exit"] == [0]


def test_wandb_without_network_costs_one_line(tmp_path):
    run, said = tracked(
        tmp_path,
        "wandb",
        CAPTURE,
        WANDB_MODE="online",
        WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_INIT_TIMEOUT="5",
    )
    assert said.count("warning: wandb failed and is told nothing more; the run goes on") == 1
    assert read_json(run / "run.json")["tracking"]["failed"]


def test_trackio_holds_settings_losses_figures_tables_and_the_report(tmp_path):
    run, _ = tracked(tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "kept"))
    name = f"the run-{read_json(run / 'run.json')['run_id']}"
    with closing(sqlite3.connect(tmp_path / "kept/moe-safety-harness.db")) as kept:
        ((called, config),) = kept.execute("select run_name, config from configs")
        rows = [json.loads(text) for (text,) in kept.execute("select metrics from metrics order by id")]
        artifacts = list(kept.execute("select name, type from artifacts"))
    assert called == name
    assert json.loads(config)["training.max_steps"] == 3
    loss = "train/unsafe_experts/loss"
    assert [row[loss] for row in rows if loss in row] == losses(run)
    rate = read_run(run).summary.figure("unsafe_experts", "demo_harmful", "refusal_rate", "builtin")
    assert rows[-1]["refusal_rate/demo_harmful/builtin/unsafe_experts"] == rate.value
    assert rows[-1]["leaderboard"]["_type"] == "trackio.table"
    assert [kind for _, kind in artifacts] == ["report"]


def test_trackio_that_cannot_write_costs_one_line(tmp_path):
    (tmp_path / "kept").write_text("no folder")
    run, said = tracked(tmp_path, "trackio", CAPTURE, TRACKIO_DIR=str(tmp_path / "kept"))
    assert said.count("warning: trackio failed and is told nothing more; the run goes on") == 1
    assert read_json(run / "run.json")["tracking"]["failed"]
