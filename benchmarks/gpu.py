"""What this package costs on one GPU, in one call of a few minutes: each part writes its own JSON file as it goes.

    benchmarks/gpu.sh                                            # everything, at most 7 minutes on an H100
    benchmarks/gpu.sh --short                                    # training and capture, at most 4
    python benchmarks/gpu.py --device cpu --shape tiny --output /tmp/gpu     # tried out on a CPU
    python benchmarks/gpu.py --table gpu-results                 # the files as tables

The model has the shape of Qwen3-30B-A3B and random bfloat16 weights, made on the device once. Parts, the most important
first: training, capture, peers, generation, stages, ideas. What does not fit into memory is a row that says so; a part
that fails leaves its message in its file, and the next one runs; the exit code then is 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
from capture import qwen3_30b, qwen3_tiny
from gpu_answers import capture, stages
from gpu_decoding import generation, ideas
from gpu_part import Part, free_memory
from gpu_peers import peers
from gpu_table import render
from gpu_training import training

from harness.models.load import LoadedModel, quiet_transformers

SHORT = ("training", "capture")
SEED = 0


@dataclass(frozen=True)
class Plan:
    """What is measured, and for how long.

    Attributes:
        sizes: batch x tokens of training, and seconds for the rounds of each.
        short_sizes: the same where time is short.
        compiling: seconds for the compiled variant's first steps in all.
        experts: trained.
        prefill, decode, pairs: of capture.
        peers: batch x tokens.
        batches, width, new: of generation.
        stages: prompts, batch, new tokens.
        ideas: batch x tokens.
        seconds: of the whole, and of each part.
        short_seconds: the same where time is short.
    """

    build: Callable[[str], LoadedModel]
    sizes: dict[str, float]
    short_sizes: dict[str, float]
    compiling: float
    experts: int
    prefill: tuple[int, int]
    decode: tuple[int, int, int]
    pairs: int
    peers: str
    batches: tuple[int, ...]
    width: int
    new: int
    stages: tuple[int, int, int]
    ideas: str
    seconds: dict[str, float]
    short_seconds: dict[str, float]


_SIZES = {"4x512": 13.0, "16x512": 24.0, "64x512": 42.0, "32x512": 21.0, "4x4096": 18.0}
_SHORT_SIZES = {size: _SIZES[size] for size in ("4x512", "16x512", "64x512")}
_SECONDS = {"training": 225, "capture": 52, "peers": 42, "generation": 38, "stages": 28, "ideas": 10}
_TINY_SIZES = {"2x16": 0.5, "4x16": 0.5, "2x64": 0.5}
_TINY_SECONDS = dict.fromkeys(_SECONDS, 60.0)
PLANS = {
    "qwen3-30b": Plan(
        qwen3_30b, _SIZES, _SHORT_SIZES, 70.0, 50,
        (16, 512), (16, 64, 12), 20, "4x512", (16, 64), 64, 64, (500, 64, 32), "16x512",
        {"whole": 405.0, **_SECONDS}, {"whole": 230.0, "training": 155, "capture": 55},
    ),
    "tiny": Plan(
        qwen3_tiny, _TINY_SIZES, {"2x16": 1.0}, 60.0, 5,
        (4, 32), (4, 8, 4), 4, "2x16", (2, 4), 8, 10, (5, 4, 4), "4x16",
        {"whole": 300.0, **_TINY_SECONDS}, {"whole": 100.0, **_TINY_SECONDS},
    ),
}  # fmt: skip


def where(device: torch.device, shape: str) -> dict[str, Any]:
    """Return what the figures depend on."""
    facts: dict[str, Any] = {
        "shape": shape,
        "device": str(device),
        "seeds": {"weights": SEED, "tokens": 0, "experts": 0},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": installed("transformers"),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "machine": platform.platform(),
        "allocator": os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or os.environ.get("PYTORCH_ALLOC_CONF") or "",
    }
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": found.name,
            "gpu_gib": round(found.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
        }
    return facts


def installed(name: str) -> str:
    """Return a package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """Return the commit that the environment names, or the checkout's: a copy elsewhere may not have its own."""
    if named := os.environ.get("COMMIT"):
        return named
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()


def works(loaded: LoadedModel, plan: Plan, short: bool) -> dict[str, Callable[[Part], None]]:
    """Return the parts by name, the most important first."""
    sizes = plan.short_sizes if short else plan.sizes
    parts: dict[str, Callable[[Part], None]] = {
        "training": lambda part: training(loaded, part, sizes, plan.experts, plan.compiling),
        "capture": lambda part: capture(loaded, part, plan.prefill, plan.decode, plan.pairs),
        "peers": lambda part: peers(loaded, part, plan.peers, plan.experts),
        "generation": lambda part: generation(loaded, part, plan.batches, plan.width, plan.new),
        "stages": lambda part: stages(loaded, part, *plan.stages),
        "ideas": lambda part: ideas(loaded, part, plan.ideas, plan.experts, compiled=False),
    }
    return {name: part for name, part in parts.items() if not short or name in SHORT}


def main() -> None:
    """Measure, write and print."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=list(PLANS), default="qwen3-30b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--short", action="store_true", help="training and capture alone")
    parser.add_argument("--parts", type=lambda text: text.split(","), help="only these, of the parts above")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT") or "gpu-results"))
    parser.add_argument(
        "--table", type=Path, metavar="DIR", help="print a folder's files as tables, measure nothing"
    )
    arguments = parser.parse_args()
    if arguments.table:
        print(render(arguments.table))
        return
    quiet_transformers()
    arguments.output.mkdir(parents=True, exist_ok=True)
    plan = PLANS[arguments.shape]
    seconds = plan.short_seconds if arguments.short else plan.seconds
    torch.manual_seed(SEED)
    loaded = plan.build(arguments.device)
    facts = {**where(loaded.device, arguments.shape), "built_after_seconds": time.perf_counter() - started}
    print(f"built after {facts['built_after_seconds']:.0f} s", flush=True)
    failed = False
    for name, work in works(loaded, plan, arguments.short).items():
        if arguments.parts and name not in arguments.parts:
            continue
        left = seconds["whole"] - (time.perf_counter() - started)
        part = Part(arguments.output / f"{name}.json", facts, min(seconds[name], left))
        try:
            if left < 5:
                part.put(note="no time left")
            else:
                work(part)
                part.put(finished=True)
        except Exception as error:
            part.error(name, error)
        failed |= bool(part.result["errors"])
        free_memory(loaded.device)
        print(f"{name}: {part.spent:.0f} s{', with errors' if part.result['errors'] else ''}", flush=True)
    print(render(arguments.output))
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
