"""A run in progress: its plan, its folder, and the model once something needs it."""

from __future__ import annotations

import platform
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import harness
from harness.engines.transformers import TransformersEngine
from harness.models.checkpoint import model_fingerprint
from harness.models.load import LoadedModel, load_model, quiet_transformers
from harness.progress import say
from harness.run.plan import Plan
from harness.store.fingerprint import fingerprint
from harness.store.run_folder import RunFolder

_PACKAGES = (
    "torch",
    "transformers",
    "lm-eval",
    "datasets",
    "accelerate",
    "safetensors",
    "scikit-learn",
    "statsmodels",
)


class Session:
    """What the stages of a run share.

    Args:
        plan: what to do.
        folder: where to keep it.
    """

    def __init__(self, plan: Plan, folder: RunFolder) -> None:
        self.plan = plan
        self.config = plan.config
        self.folder = folder

    @cached_property
    def model_key(self) -> str:
        """Fingerprint of the weights, configuration, tokenizer and chat template."""
        return model_fingerprint(self.plan.ref.path)

    @cached_property
    def world(self) -> dict[str, Any]:
        """Everything besides the prompts that can change an answer of the base model."""
        versions = package_versions()
        return {
            "model": self.model_key,
            "dtype": self.config.dtype,
            "device": self.device_type,
            "engine": self.config.engine,
            "generation": self.config.generation.model_dump(),
            "versions": {name: versions[name] for name in ("harness", "torch", "transformers")},
        }

    @property
    def device_type(self) -> str:
        """The kind of device: cpu or cuda."""
        from harness.models.load import pick_device

        return pick_device(self.config.device).type

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model, loaded when first needed: a finished run is reported without it."""
        quiet_transformers()
        say(f"loading {self.plan.ref.name}")
        return load_model(self.plan.ref, self.config.dtype, self.config.device, self.config.trust_remote_code)

    @cached_property
    def engine(self) -> TransformersEngine:
        """What generates the answers."""
        generation = self.config.generation
        return TransformersEngine(self.loaded, generation.batch_size, generation.chat_template_kwargs)

    def key(self, **inputs: Any) -> str:
        """Return a stage's fingerprint: its own inputs and the world they are used in."""
        return fingerprint({"world": self.world, **inputs})

    def seeds(self) -> dict[str, int]:
        """Return each seed by what it decides."""
        seed = self.config.seed
        seeds = {"splits": seed, "refusals": seed, "training_order": seed, "capability": seed}
        draws = [variant for variant in self.plan.variants if variant.spec.experts == "random"]
        return seeds | {variant.name: random_draw_seed(seed, variant.draw) for variant in draws}


def random_draw_seed(seed: int, draw: int) -> int:
    """Return the seed of one random draw of experts; no two runs with near seeds share draws."""
    return int(fingerprint(["random experts", seed, draw])[:8], 16)


def package_versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    versions = {"harness": harness.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
