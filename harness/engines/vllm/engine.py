"""The vLLM engine: the same prompts, stop and decoding rules as the transformers engine, and the same routing counts.

vLLM runs in this process with its V1 model runner (`VLLM_ENABLE_V1_MULTIPROCESSING=0`); under tensor parallelism its
workers are processes of their own. Prefix caching is off, since a cached token is routed nowhere.
"""

from __future__ import annotations

import gc
import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, HarnessError, VariantImpossibleError, first_line
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.checkpoints.merge import check_disk, write_merged
from harness.checkpoints.proof import model_fingerprint
from harness.engines.base import BatchResult, Sampling, answer_ids, longest_first, make_responses
from harness.engines.vllm.install import import_vllm
from harness.engines.vllm.rows import padded, renamed, request_rows
from harness.engines.vllm.worker import RoutingExtension
from harness.engines.witness import Agreement, Witness, agreement
from harness.models.auto import read_config_file
from harness.models.decoding import end_tokens
from harness.routing.capture import count, phase_masks, routed_tokens
from harness.routing.counts import Record

if TYPE_CHECKING:
    from harness.config import VllmConfig
    from harness.data.prompts import Prompt
    from harness.engines.chat import ChatTemplate
    from harness.engines.in_memory import ModelInMemory
    from harness.engines.vllm.worker import Step
    from harness.engines.witness import Witnesses
    from harness.interventions.base import Prepared
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel

# vLLM shares a batch out to steps by the memory it has, so it is handed several at a time.
_BATCHES_AT_ONCE = 8
_LONGEST = 8192
_LONGEST_REASON = 200
_CPU_CACHE_GIB = 1.0
_EXTENSION = f"{RoutingExtension.__module__}.{RoutingExtension.__qualname__}"


class VllmEngine:
    """Lets vLLM answer prompts; it is started when something is asked of it.

    Args:
        model: the base model on disk; once vLLM has started, none of it is in the memory of this process.
        chat: the chat template that prompts are rendered with.
        batch_size: prompts of one batch; vLLM is handed eight batches at a time.
        settings: how vLLM is started.
        witnesses: say, before each start, what the weights that are to be served must answer.

    Attributes:
        agreement: how what is served compares with the witness, once vLLM runs.
    """

    name = "vllm"

    def __init__(
        self,
        model: ModelInMemory,
        chat: ChatTemplate,
        batch_size: int,
        settings: VllmConfig,
        witnesses: Witnesses | None = None,
    ) -> None:
        self.model = model
        self.ref = model.ref
        self.moe = model.outline
        self.chat = chat
        self.tokenizer = chat.tokenizer
        self.batch_size = batch_size
        self.settings = settings
        self.ends = end_tokens(self.ref.path, self.moe.model.config, self.tokenizer)
        self.checkpoint = self.ref.path
        self._masked: dict[int, list[int]] = {}
        self._llm: Any = None
        self._started: tuple[Path, bool] | None = None
        self._witnesses = witnesses
        self._witness = witnesses.base if witnesses else None
        self._checked = False
        self.agreement: Agreement | None = None
        # One of the two in memory at a time.
        model.make_room = self.close

    @property
    def is_running(self) -> bool:
        """Whether vLLM has been started."""
        return self._llm is not None

    @property
    def max_model_len(self) -> int:
        """The longest prompt with its answer, in tokens."""
        return longest_text(self.moe, self.settings)

    def batches(
        self, prompts: Sequence[Prompt], system_prompt: str | None = None, opening: str = ""
    ) -> list[list[Prompt]]:
        """Share prompts out into batches of similar length, the longest first."""
        return longest_first(prompts, self.chat, _BATCHES_AT_ONCE * self.batch_size, system_prompt, opening)

    def serve(
        self,
        checkpoint: Path | None = None,
        masked: Mapping[int, Sequence[int]] | None = None,
        witness: Callable[[], Witness] | None = None,
    ) -> None:
        """Answer as a variant from now on.

        Args:
            checkpoint: folder of its weights; by default the base model's.
            masked: experts, by layer, that no token may be routed to.
            witness: says what the variant must answer.
        """
        self.checkpoint = checkpoint or self.ref.path
        self._witness = witness
        self._checked, self.agreement = False, None
        self._masked = {layer: list(experts) for layer, experts in (masked or {}).items()}

    @contextmanager
    def serving(self, made: Prepared, scratch: Path) -> Iterator[None]:
        """Answer as a variant inside the block; vLLM is started on a checkpoint of it where its weights are others.

        What is served is compared with the model in memory (`vllm.check_weights`).

        Raises:
            BadInputError: vLLM cannot serve the variant, or serves other weights than the variant's.
        """
        served = made.intervention.served(made)
        if served is None:
            raise BadInputError(f"variant '{made.name}': {why_not_servable(made)}")
        checkpoint = None
        if served.delta is not None:
            checkpoint = scratch
            shutil.rmtree(checkpoint, ignore_errors=True)
            check_disk(self.ref, checkpoint.parent)
            write_merged(self.ref, served.delta, checkpoint)
        witness = base = self._witnesses.base if self._witnesses else None
        if self._witnesses and (checkpoint or served.masked):
            witness = partial(self._witnesses.of, made)
        self.serve(checkpoint, served.masked, witness)
        try:
            yield
        finally:
            self.serve(witness=base)
            if checkpoint is not None:
                self.close()
                shutil.rmtree(checkpoint, ignore_errors=True)

    def generate(
        self,
        batches: Sequence[Sequence[Prompt]],
        max_new_tokens: int,
        system_prompt: str | None = None,
        capture: Record | None = None,
        sampling: Sampling | None = None,
        opening: str = "",
    ) -> Iterator[BatchResult]:
        """Answer batch after batch, greedily unless told to sample; see `Engine.generate`.

        Raises:
            HarnessError: vLLM fails, a prompt is too long, or routing cannot be trusted.
            VariantImpossibleError: a masked expert was chosen all the same.
        """
        for batch in batches:
            tokens = self.chat.tokens([prompt.text for prompt in batch], system_prompt, opening)
            self._check_lengths(batch, tokens, max_new_tokens)
            yield self._answer(batch, tokens, max_new_tokens, capture, sampling)

    def log_probs(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the log-probability of each token but the first, given those before it."""
        from vllm import SamplingParams

        llm = self.running()
        asked = [{"prompt_token_ids": list(ids)} for ids in texts]
        how = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        with self.failures():
            outputs = llm.generate(asked, how, use_tqdm=False)
        self.check_masked()
        return [
            [
                float(row[token].logprob)
                for token, row in zip(ids[1:], output.prompt_logprobs[1:], strict=True)
            ]
            for ids, output in zip(texts, outputs, strict=True)
        ]

    def lm_eval_model(self, batch_size: int, description: str) -> Any:
        """Return lm-eval's vLLM model around the vLLM that runs; vLLM decides itself what it computes together."""
        from harness.engines.vllm.lm_eval import served_model

        return served_model(self, description)

    def record(self) -> dict[str, Any] | None:
        """Return which weights are served with which masks, and how they compare; None where vLLM does not run."""
        if not self.is_running:
            return None
        is_base = self.checkpoint == self.ref.path
        return {
            "engine": self.name,
            "fingerprint": self.model.fingerprint if is_base else model_fingerprint(self.checkpoint),
            "masked_experts": {str(layer): list(experts) for layer, experts in self._masked.items()},
            "log_probs": asdict(self.agreement) if self.agreement else None,
        }

    def close(self) -> None:
        """Stop vLLM and free its memory; the next question starts it again."""
        if self._llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        self._llm = self._started = self.agreement = None
        self._checked = False
        gc.collect()
        cleanup_dist_env_and_memory()

    def _answer(
        self,
        batch: Sequence[Prompt],
        tokens: list[list[int]],
        max_new_tokens: int,
        capture: Record | None,
        sampling: Sampling | None,
    ) -> BatchResult:
        import torch

        llm = self.running(eager=capture is not None)
        asked, names = answer_ids(batch, sampling)
        questions = [{"prompt_token_ids": ids} for ids in tokens]
        how = [self._sampling_params(prompt, max_new_tokens, sampling) for prompt in batch]
        with self.failures(), torch.random.fork_rng(devices=[], enabled=sampling is not None):
            if sampling is not None:
                torch.manual_seed(_seed(sampling, [prompt.id for prompt in batch]))
            self._call("harness_capture", capture is not None, capture == "logits")
            outputs = llm.generate(questions, how, use_tqdm=False)
            steps = self._call("harness_take")
            self._call("harness_capture", False)
        self.check_masked()
        answers = [list(answer.token_ids) for output in outputs for answer in output.outputs]
        read = [ids for ids in tokens for _ in range(len(asked) // len(batch))]
        responses = make_responses(
            asked, names, [len(ids) for ids in read], answers, set(self.ends), self.tokenizer
        )
        if capture is None:
            return BatchResult(responses)
        requests = [f"{output.request_id}/{answer.index}" for output in outputs for answer in output.outputs]
        return self._routing(responses, renamed(steps), requests, read, answers, capture)

    def _routing(
        self,
        responses: list[Any],
        steps: list[Step],
        requests: list[str],
        read: list[list[int]],
        answers: list[list[int]],
        capture: Record,
    ) -> BatchResult:
        import torch

        # The last token of an answer was sampled, never routed.
        whole = [ids + answer[:-1] for ids, answer in zip(read, answers, strict=True)]
        rows = request_rows(steps, {name: len(ids) for name, ids in zip(requests, whole, strict=True)})
        captured, mask = padded([rows[name] for name in requests], [len(ids) for ids in read])
        masks = phase_masks(mask, torch.tensor([len(answer) for answer in answers]))
        names = [response.id for response in responses]
        counts = count(captured, masks, self.moe, names)
        if capture == "counts":
            return BatchResult(responses, counts)
        token_ids = torch.zeros(len(whole), masks.shape[2], dtype=torch.long)
        for row, ids, prompt in zip(token_ids, whole, read, strict=True):
            start = mask.shape[1] - len(prompt)
            row[start : start + len(ids)] = torch.tensor(ids)
        return BatchResult(responses, counts, routed_tokens(captured, masks, token_ids, names))

    def _sampling_params(self, prompt: Prompt, max_new_tokens: int, sampling: Sampling | None) -> Any:
        from vllm import SamplingParams

        rules: dict[str, Any] = {
            "max_tokens": max_new_tokens,
            "stop_token_ids": list(self.ends),
            # Only those end an answer: what else the tokenizer calls its end does not.
            "ignore_eos": True,
            "detokenize": False,
        }
        if sampling is None:
            return SamplingParams(temperature=0.0, **rules)
        # By the prompt, so that its answers do not depend on what it is asked together with. On a CPU vLLM fails when a
        # seeded prompt is read in chunks; there the process's generator is seeded, by the batch.
        seed = None if _on_cpu() else _seed(sampling, [prompt.id])
        return SamplingParams(
            n=sampling.answers, temperature=sampling.temperature, top_p=sampling.top_p, seed=seed, **rules
        )

    def _check_lengths(self, batch: Sequence[Prompt], tokens: list[list[int]], max_new_tokens: int) -> None:
        for prompt, ids in zip(batch, tokens, strict=True):
            if len(ids) + max_new_tokens > self.max_model_len:
                raise HarnessError(
                    f"prompt '{prompt.id}' has {len(ids)} tokens and its answer up to {max_new_tokens}, together more "
                    f"than vLLM was told to expect ({self.max_model_len}): raise vllm.max_model_len"
                )

    def check_masked(self) -> None:
        """Raise VariantImpossibleError where a masked expert was chosen all the same."""
        layer = self._call("harness_unmasked") if self._masked else None
        if layer is not None:
            raise VariantImpossibleError(
                f"steer: layer {layer} chose an expert that was masked; vLLM's router of this model cannot be steered"
            )

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker extension everywhere; returns what the first worker says."""
        return self._llm.collective_rpc(method, args=arguments)[0]

    def running(self, eager: bool = False) -> Any:
        """Return vLLM's `LLM` with what is served at the moment, started where it is not.

        Args:
            eager: without CUDA graphs, as capture and steering need.
        """
        eager = eager or bool(self._masked) or not self.settings.cuda_graphs or _on_cpu()
        if self._started is not None and (self._started[0] != self.checkpoint or eager > self._started[1]):
            self.close()
        # It asks the model in memory, which vLLM may have to make room for.
        witness = self._witness() if self._witness and not self._checked else None
        if self._llm is None:
            self._start(eager)
        self._call("harness_mask", self._masked)
        if witness is not None:
            self._checked = True
            self.agreement = self._check_weights(witness)
        return self._llm

    def _start(self, eager: bool) -> None:
        import torch

        self.model.unload()
        say(f"starting vLLM on {self.checkpoint.name if self.checkpoint != self.ref.path else self.ref.name}")
        LLM = import_vllm().LLM
        threads = torch.set_num_threads
        devices = list(range(torch.cuda.device_count()))
        try:
            # vLLM seeds the process's generators, and on a CPU it disables torch.set_num_threads.
            with torch.random.fork_rng(devices=devices), self.failures(starting=True):
                self._llm = LLM(**self._arguments(eager))
                found = self._call("harness_install")
        finally:
            torch.set_num_threads = threads
        self._started = (self.checkpoint, eager)
        expected = [(layer.index, layer.n_experts, layer.experts_per_token) for layer in self.moe.layers]
        if [tuple(layer) for layer in found] != expected:
            self.close()
            raise HarnessError(
                f"vLLM's MoE layers of '{self.ref.name}' (index, experts, k) are {found}, expected {expected}"
            )

    def _check_weights(self, witness: Witness) -> Agreement:
        found = agreement(self.log_probs(witness.texts), witness)
        if not found.holds:
            self.close()
            raise BadInputError(
                f"vLLM answers otherwise than transformers with the weights of {self.checkpoint}, a {self._kind()}: "
                f"log-probabilities of {found.tokens} tokens differ by {found.gap:.2g} nats on average, more than "
                f"{found.tolerance:g}; use --engine transformers"
            )
        if not found.telling:
            say(
                f"the variant's log-probabilities are within {found.from_base:.2g} nats of base's: served weights were "
                "checked, but base's would have passed as well"
            )
        return found

    def _arguments(self, eager: bool) -> dict[str, Any]:
        settings = self.settings
        cache = settings.kv_cache_gib or (_CPU_CACHE_GIB if _on_cpu() else None)
        chunk = settings.max_num_batched_tokens
        return {
            "model": str(self.checkpoint),
            "tokenizer": str(self.ref.path),
            "dtype": self._dtype(),
            "enforce_eager": eager,
            "enable_prefix_caching": False,
            "enable_chunked_prefill": True,
            "max_model_len": self.max_model_len,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "tensor_parallel_size": settings.tensor_parallel_size,
            "enable_expert_parallel": settings.expert_parallel,
            "distributed_executor_backend": "uni" if settings.tensor_parallel_size == 1 else "mp",
            "worker_extension_cls": _EXTENSION,
            # Its own models alone: the fallback on transformers' code has no routers to listen to.
            "model_impl": "vllm",
            # Stop and decoding rules are given with each question, nothing comes from the checkpoint.
            "generation_config": "vllm",
            "load_format": "safetensors",
            "async_scheduling": False,
            "use_tqdm_on_load": False,
            "trust_remote_code": self.ref.trust_remote_code,
            "seed": 0,
            **({"kv_cache_memory_bytes": int(cache * 2**30)} if cache else {}),
            **({"max_num_batched_tokens": chunk} if chunk else {}),
        }

    def _kind(self) -> str:
        return str(self.moe.model.config.model_type)

    def _dtype(self) -> str:
        """Return the dtype by name: vLLM's own "auto" would turn a float32 checkpoint into bfloat16."""
        if self.model.dtype != "auto":
            return self.model.dtype
        config = read_config_file(self.ref.path)
        text = config.get("text_config") or {}
        stored = text.get("dtype") or config.get("dtype") or config.get("torch_dtype")
        return str(stored) if stored else "auto"

    @contextmanager
    def failures(self, starting: bool = False) -> Iterator[None]:
        """Turn what vLLM raises into one line, and stop what is broken."""
        import torch

        try:
            yield
        except HarnessError:
            raise
        except torch.OutOfMemoryError as error:
            self.close()
            raise HarnessError(
                "vLLM ran out of memory: lower vllm.gpu_memory_utilization or vllm.max_num_batched_tokens"
            ) from error
        except Exception as error:
            # vLLM checks models and settings in many places and raises many kinds.
            self.close()
            reason = _reason(error)
            if starting and isinstance(error, (ValueError, LookupError, AttributeError, NotImplementedError)):
                raise BadInputError(
                    f"vLLM cannot serve '{self.ref.name}', a {self._kind()}: {reason}"
                ) from error
            what = "vLLM could not be started" if starting else "vLLM failed"
            raise HarnessError(f"{what}: {reason}") from error


def why_not_servable(made: Prepared) -> str | None:
    """Return why vLLM cannot answer as a variant, or None: it loads weights by itself, from a checkpoint."""
    if made.intervention.served(made) is not None:
        return None
    return "vLLM serves checkpoints and masked experts, not changes to a model in memory: use --engine transformers"


def longest_text(outline: MoEModel, settings: VllmConfig) -> int:
    """Return the longest prompt with its answer, in tokens, that vLLM is started for."""
    own = getattr(outline.model.config.get_text_config(), "max_position_embeddings", None)
    return settings.max_model_len or min(own or _LONGEST, _LONGEST)


def check_servable(ref: ModelRef, outline: MoEModel) -> None:
    """Refuse a model that vLLM has no code for; no weights are read.

    Raises:
        BadInputError: names the architecture, or the size that is not served.
    """
    vllm = import_vllm()
    known = vllm.ModelRegistry.get_supported_archs()
    architectures = read_config_file(ref.path).get("architectures") or []
    if not set(architectures) & set(known):
        raise BadInputError(
            f"engine = vllm: vLLM {vllm.__version__} has no model '{', '.join(architectures) or 'unnamed'}', which "
            f"'{ref.name}' is: use --engine transformers"
        )


def _reason(error: Exception) -> str:
    """Return in one line why vLLM failed; it lists hundreds of names in some messages."""
    from pydantic import ValidationError

    line = first_line(ValueError(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else error)
    # These say a name alone.
    if isinstance(error, (LookupError, AttributeError)) and str(error).strip():
        line = f"{type(error).__name__} {line}"
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " ..."


def _seed(sampling: Sampling, ids: Sequence[str]) -> int:
    return int(fingerprint([sampling.seed, list(ids)])[:15], 16)


def _on_cpu() -> bool:
    return bool(importlib.import_module("vllm.platforms").current_platform.is_cpu())
