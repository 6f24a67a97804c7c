"""The vLLM engine: the same prompts, stop and decoding rules as the transformers engine, and the same routing counts.

vLLM runs in this process with its V1 model runner (`VLLM_ENABLE_V1_MULTIPROCESSING=0`); under tensor parallelism its
workers are processes of their own. Prefix caching is off, since a cached token is routed nowhere.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, HarnessError, VariantImpossibleError
from harness.base.progress import say
from harness.checkpoints.merge import write_merged
from harness.checkpoints.proof import model_fingerprint
from harness.engines.answers import make_answers, with_routing
from harness.engines.base import BatchResult, Decoding, Engine
from harness.engines.vllm.install import import_vllm
from harness.engines.vllm.rows import captured_batch, renamed
from harness.engines.vllm.start import FOLLOWED, arguments, longest_text, on_cpu, reason_of, why_not_servable
from harness.engines.witness import Agreement, Witness, agreement
from harness.models.decoding import end_tokens
from harness.models.thoughts import Reader, shortened

if TYPE_CHECKING:
    from harness.config import VllmConfig
    from harness.data.prompts import Prompt
    from harness.engines.in_memory import ModelInMemory
    from harness.engines.witness import Witnesses
    from harness.interventions.base import Prepared
    from harness.models.chat import ChatTemplate

# vLLM shares a batch out to steps by the memory it has, so it gets several of our batches at once.
_BATCHES_AT_ONCE = 8


class VllmEngine(Engine):
    """Lets vLLM answer prompts; the first question starts it.

    Args:
        model: the base model on disk; once vLLM has started, none of it is in the memory of this process.
        chat: the chat template that prompts are rendered with.
        batch_size: prompts per batch of the settings; vLLM gets eight times as many at once.
        settings: how vLLM is started.
        witnesses: give the log-probabilities that the served weights must have, before each start.
        followed: generation settings of the checkpoint that are followed.

    Attributes:
        agreement: how the served weights compare with the witness, once vLLM runs.
    """

    name = "vllm"

    def __init__(
        self,
        model: ModelInMemory,
        chat: ChatTemplate,
        batch_size: int,
        settings: VllmConfig,
        witnesses: Witnesses | None = None,
        followed: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.ref = model.ref
        self.moe = model.outline
        self.chat = chat
        self.tokenizer = chat.tokenizer
        self.batch_size = _BATCHES_AT_ONCE * batch_size
        self.settings = settings
        self.ends = end_tokens(self.ref.path, self.moe.model.config, self.tokenizer)
        self._followed = {FOLLOWED[name]: value for name, value in (followed or {}).items()}
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
            witness: gives the log-probabilities that the variant must have.
        """
        self.checkpoint = checkpoint or self.ref.path
        self._witness = witness
        self._checked, self.agreement = False, None
        self._masked = {layer: list(experts) for layer, experts in (masked or {}).items()}

    @contextmanager
    def serving(self, made: Prepared, scratch: Path) -> Iterator[None]:
        """Answer as a variant inside the block; a variant with weights of its own is written and vLLM started on it.

        The served weights are compared with the model in memory (`vllm.check_weights`).

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

    def answer(self, batch: Sequence[Prompt], tokens: list[list[int]], how: Decoding) -> BatchResult:
        """Answer one batch, whose rendered prompts are these tokens.

        Raises:
            HarnessError: vLLM fails, a prompt is too long, or routing cannot be trusted.
            VariantImpossibleError: a masked expert was chosen nevertheless.
        """
        import torch

        self._check_lengths(batch, tokens, how.longest)
        capture, sampling = how.capture, how.sampling
        llm = self.running(eager=capture is not None)
        numbers: Sequence[int | None] = [None] if sampling is None else sampling.numbers
        prompts = [ids for ids in tokens for _ in numbers]
        params = [self._sampling_params(prompt, how, number) for prompt in batch for number in numbers]
        with self.failures(), torch.random.fork_rng(devices=[], enabled=sampling is not None):
            if sampling is not None:
                # On a CPU, where no answer has a seed of its own (`why_not_seeded`), answers follow from their batch.
                torch.manual_seed(sampling.seed_of("\n".join(prompt.id for prompt in batch), 0))
            self._call("harness_capture", capture is not None, capture == "logits")
            outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
            steps = self._call("harness_take")
            self._call("harness_capture", False)
        self.check_masked()
        whole = [list(output.outputs[0].token_ids) for output in outputs]
        lengths = [len(ids) for ids in prompts]
        reader = Reader(self.chat, self.ends, how.opening)
        limits = [how.limit(reader) for _ in whole]
        # vLLM knows no limit that depends on where an answer begins: what is beyond it is dropped.
        generated = [
            row if limit is None else shortened(row, limit) for row, limit in zip(whole, limits, strict=True)
        ]
        answers, starts = make_answers(batch, sampling, lengths, generated, self.ends, reader)
        if capture is None:
            return BatchResult(answers)
        requests = [f"{output.request_id}/{output.outputs[0].index}" for output in outputs]
        captured, masks, token_ids = captured_batch(
            renamed(steps), requests, prompts, whole, generated, starts
        )
        return with_routing(answers, captured, masks, token_ids, self.moe, capture)

    def _sampling_params(self, prompt: Prompt, how: Decoding, number: int | None) -> Any:
        from vllm import SamplingParams

        rules: dict[str, Any] = {
            "max_tokens": how.longest,
            "stop_token_ids": list(self.ends),
            # Only these end an answer, whatever else the tokenizer calls its end.
            "ignore_eos": True,
            "detokenize": False,
            **self._followed,
        }
        sampling = how.sampling
        if sampling is None or number is None:
            return SamplingParams(temperature=0.0, **rules)
        seed = None if on_cpu() else sampling.seed_of(prompt.id, number)
        return SamplingParams(temperature=sampling.temperature, top_p=sampling.top_p, seed=seed, **rules)

    def _check_lengths(self, batch: Sequence[Prompt], tokens: list[list[int]], longest: int) -> None:
        for prompt, ids in zip(batch, tokens, strict=True):
            if len(ids) + longest > self.max_model_len:
                raise HarnessError(
                    f"prompt '{prompt.id}' has {len(ids)} tokens and its answer up to {longest}, together more "
                    f"than vLLM was started for ({self.max_model_len}): raise vllm.max_model_len"
                )

    def check_masked(self) -> None:
        """Raise VariantImpossibleError where a masked expert was chosen nevertheless."""
        layer = self._call("harness_unmasked") if self._masked else None
        if layer is not None:
            raise VariantImpossibleError(
                f"steer: layer {layer} chose an expert that was masked; vLLM's router of this model cannot be steered"
            )

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker extension everywhere; returns the first worker's result."""
        return self._llm.collective_rpc(method, args=arguments)[0]

    def running(self, eager: bool = False) -> Any:
        """Return vLLM's `LLM` with the weights and masks served at the moment; starts it if needed.

        Args:
            eager: without CUDA graphs, as capture and steering need.
        """
        eager = eager or bool(self._masked) or not self.settings.cuda_graphs or on_cpu()
        if self._started is not None and (self._started[0] != self.checkpoint or eager > self._started[1]):
            self.close()
        # The witness needs the model in memory, for which vLLM may have to make room.
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
                self._llm = LLM(**arguments(self.model, self.checkpoint, self.settings, eager))
                layers = self._call("harness_install")
        finally:
            torch.set_num_threads = threads
        self._started = (self.checkpoint, eager)
        expected = [(layer.index, layer.n_experts, layer.experts_per_token) for layer in self.moe.layers]
        if [tuple(layer) for layer in layers] != expected:
            self.close()
            raise HarnessError(
                f"vLLM's MoE layers of '{self.ref.name}' (index, experts, k) are {layers}, expected {expected}"
            )

    def _check_weights(self, witness: Witness) -> Agreement:
        result = agreement(self.log_probs(witness.texts), witness)
        if not result.holds:
            self.close()
            raise BadInputError(
                f"vLLM answers otherwise than transformers with the weights of {self.checkpoint}, a {self._kind()}: "
                f"log-probabilities of {result.tokens} tokens differ by {result.gap:.2g} nats on average, more than "
                f"{result.tolerance:g}; use --engine transformers"
            )
        if not result.would_notice_base:
            say(
                f"the variant's log-probabilities are within {result.from_base:.2g} nats of base's: served weights "
                "were checked, but base's would have passed as well"
            )
        return result

    def _kind(self) -> str:
        return str(self.moe.model.config.model_type)

    @contextmanager
    def failures(self, starting: bool = False) -> Iterator[None]:
        """Turn an error of vLLM into one line, and stop a broken vLLM."""
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
            reason = reason_of(error)
            if starting and isinstance(error, (ValueError, LookupError, AttributeError, NotImplementedError)):
                raise BadInputError(
                    f"vLLM cannot serve '{self.ref.name}', a {self._kind()}: {reason}"
                ) from error
            what = (
                f"vLLM could not be started on '{self.ref.name}', a {self._kind()}"
                if starting
                else "vLLM failed"
            )
            raise HarnessError(f"{what}: {reason}") from error
