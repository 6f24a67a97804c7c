"""The transformers engine: batched greedy generation, with routing captured on the way.

Batches are made once, from the prompts' lengths, so that a resumed run meets the same batches: in bfloat16 an
answer depends on what it is padded with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.base.fingerprint import fingerprint
from harness.engines.base import (
    BatchResult,
    Engine,
    EngineKind,
    Response,
    Sampling,
    answer_ids,
    longest_first,
    make_responses,
)
from harness.engines.chat import ChatTemplate
from harness.models.decoding import decoding_by, greedy
from harness.routing.capture import RoutingCapture, count, phase_masks, routed_tokens
from harness.routing.counts import Record

if TYPE_CHECKING:
    import torch

    from harness.config import RunConfig
    from harness.data.prompts import Prompt
    from harness.engines.in_memory import ModelInMemory
    from harness.interventions.base import Prepared
    from harness.models.load import LoadedModel


class TransformersEngine(Engine):
    """Lets a loaded model answer prompts.

    Args:
        loaded: the model; a variant is whatever state its experts are in at the moment.
        batch_size: prompts generated together.
        chat_template_kwargs: passed on to the chat template.
    """

    name = "transformers"

    def __init__(
        self, loaded: LoadedModel, batch_size: int, chat_template_kwargs: dict[str, Any] | None = None
    ) -> None:
        self.loaded = loaded
        self.batch_size = batch_size
        self.chat = ChatTemplate(loaded.tokenizer, chat_template_kwargs)

    def batches(
        self, prompts: Sequence[Prompt], system_prompt: str | None = None, opening: str = ""
    ) -> list[list[Prompt]]:
        """Share prompts out into batches of similar length, the longest first (they need the most memory)."""
        return longest_first(prompts, self.chat, self.batch_size, system_prompt, opening)

    def generate(
        self,
        batches: Sequence[Sequence[Prompt]],
        max_new_tokens: int,
        system_prompt: str | None = None,
        capture: Record | None = None,
        sampling: Sampling | None = None,
        opening: str = "",
    ) -> Iterator[BatchResult]:
        """Answer batch after batch, greedily unless told to sample.

        Args:
            batches: from `batches`.
            max_new_tokens: the longest answer.
            system_prompt: told to the model first.
            capture: how much of the routing to keep: counts, also single tokens, also router logits.
            sampling: draw several answers a prompt.
            opening: the beginning of every answer, given to the model; the responses are what follows it.

        Raises:
            HarnessError: out of memory (says which knob to turn), or routing that cannot be trusted.
        """
        recorder = RoutingCapture(self.loaded.moe, logits=capture == "logits") if capture else None
        for batch in batches:
            tokens = self.chat.tokens([prompt.text for prompt in batch], system_prompt, opening)
            yield self._answer(batch, tokens, max_new_tokens, recorder, capture, sampling)

    def serving(self, made: Prepared, scratch: Path) -> AbstractContextManager[None]:
        """Answer as a variant inside the block: what it does is done to the model in memory."""
        return made.intervention.in_memory(self.loaded.moe, made)

    def lm_eval_model(self, batch_size: int, description: str) -> Any:
        """Return lm-eval's model around the model in memory, in the state it is in."""
        from harness.engines.lm_eval import language_model

        moe, tokenizer = self.loaded.moe, self.loaded.tokenizer
        return language_model(moe.model, tokenizer, batch_size, self.chat.arguments, description)

    def _answer(
        self,
        batch: Sequence[Prompt],
        tokens: list[list[int]],
        max_new_tokens: int,
        recorder: RoutingCapture | None,
        capture: Record | None,
        sampling: Sampling | None,
    ) -> BatchResult:
        import torch

        encoded = self.loaded.tokenizer.pad(
            {"input_ids": tokens},
            padding_side="left",
            return_tensors="pt",
        ).to(self.loaded.device)
        answers = sampling.answers if sampling else 1
        try:
            with torch.inference_mode(), recorder.installed() if recorder else nullcontext():
                whole = self._generate(encoded, max_new_tokens, sampling, [prompt.id for prompt in batch])
                # Row b * answers + j is answer j to prompt b, from the first forward pass on.
                mask = encoded["attention_mask"].repeat_interleave(answers, dim=0)
                new = whole[:, mask.shape[1] :]
                asked, ids = answer_ids(batch, sampling)
                responses = self._responses(asked, ids, mask, new)
                if recorder is None:
                    return BatchResult(responses)
                captured = recorder.take(len(asked))
                masks = phase_masks(mask, self._lengths(new))
                counts = count(captured, masks, self.loaded.moe, ids)
                if capture == "counts":
                    return BatchResult(responses, counts)
                return BatchResult(
                    responses, counts, routed_tokens(captured, masks, whole[:, : masks.shape[2]], ids)
                )
        except torch.OutOfMemoryError as error:
            raise HarnessError(
                f"out of memory while {len(batch)} prompts were answered: lower generation.batch_size"
            ) from error

    def _generate(
        self, encoded: Any, max_new_tokens: int, sampling: Sampling | None, ids: Sequence[str]
    ) -> torch.Tensor:
        """Return prompts with their answers, [B * answers, P + G]."""
        import torch

        model: Any = self.loaded.moe.model
        rules = greedy(self._end_tokens(), self.loaded.tokenizer.pad_token_id, max_new_tokens)
        if sampling is not None:
            rules.update(
                do_sample=True,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=0,
                num_return_sequences=sampling.answers,
            )
        devices = [self.loaded.device] if self.loaded.device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices, enabled=sampling is not None),
            decoding_by(model, rules),
        ):
            if sampling is not None:
                # By the batch, so that a resumed run draws what an uninterrupted one would.
                torch.manual_seed(int(fingerprint([sampling.seed, list(ids)])[:15], 16))
            output: torch.Tensor = model.generate(**encoded, generation_config=rules)
        return output

    def _end_tokens(self) -> list[int]:
        eos = self.loaded.moe.model.generation_config.eos_token_id
        if eos is None:
            return [self.loaded.end_of_turn]
        return list(eos) if isinstance(eos, list) else [eos]

    def _lengths(self, new: torch.Tensor) -> torch.Tensor:
        """Return the tokens of each answer, its end token included, [B]."""
        import torch

        ends = torch.isin(new, torch.tensor(self._end_tokens(), device=new.device))
        before_end = (ends.cumsum(dim=1) == 0).sum(dim=1)
        return (before_end + 1).clamp(max=new.shape[1])

    def _responses(
        self, asked: Sequence[Prompt], ids: Sequence[str], mask: torch.Tensor, new: torch.Tensor
    ) -> list[Response]:
        rows, lengths = new.tolist(), self._lengths(new).tolist()
        answers = [row[:n] for row, n in zip(rows, lengths, strict=True)]
        ends = set(self._end_tokens())
        return make_responses(asked, ids, mask.sum(dim=1).tolist(), answers, ends, self.loaded.tokenizer)


class TransformersKind(EngineKind):
    """The engine that answers with the model in memory, on any machine and as any variant."""

    name = "transformers"

    def open(self, config: RunConfig, model: ModelInMemory, prompts: Sequence[Prompt]) -> TransformersEngine:
        """Return the engine; it loads the model."""
        generation = config.generation
        return TransformersEngine(model.loaded, generation.batch_size, generation.chat_template_kwargs)


TRANSFORMERS = TransformersKind()
