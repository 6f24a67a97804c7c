"""The optional packages: what each extra of pyproject.toml is for, and the line that installs it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple


class Extra(NamedTuple):
    """One extra for users.

    Attributes:
        package: the distribution that it brings.
        purpose: the command or option that needs it.
    """

    package: str
    purpose: str


EXTRAS = {
    "gguf": Extra("gguf", "harness models build smol-moe"),
    "plots": Extra("matplotlib", "harness analyze"),
    "peft": Extra("peft", "adapters, and the baseline lora_all"),
    "inspect": Extra("inspect_ai", "harness import, harness export --format inspect"),
    "wandb": Extra("wandb", "--track wandb"),
    "trackio": Extra("trackio", "--track trackio"),
    "vllm": Extra("vllm", "--engine vllm, in an environment of its own"),
    "ray": Extra("ray", "harness sweep --executor ray"),
}


def pip_line(extra: str) -> str:
    """Return the command that installs an extra."""
    assert extra in EXTRAS
    return f"pip install 'moe-safety-harness[{extra}]'"


def installed(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
