"""The transformers engine: batched generation, greedy or sampled, with routing captured on the way.

Batches are made once, from the prompts' lengths, so that a resumed run meets the same batches: in bfloat16 an
answer depends on what it is padded with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.engines.answers import make_answers, with_routing
from harness.engines.base import BatchResult, Decoding, Engine, EngineKind, chat_of
from harness.models.chat import ChatTemplate
from harness.models.decoding import decoding_by, followed, greedy
from harness.models.thoughts import Limit, Reader, shortened
from harness.routing.capture import RoutingCapture, phase_masks

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
        batch_size: answers generated together.
        chat: renders prompts; by default by the tokenizer's own template.
        followed: generation settings of the checkpoint that are followed.
    """

    name = "transformers"

    def __init__(
        self,
        loaded: LoadedModel,
        batch_size: int,
        chat: ChatTemplate | None = None,
        followed: Mapping[str, Any] | None = None,
    ) -> None:
        self.loaded = loaded
        self.batch_size = batch_size
        self.chat = chat or ChatTemplate(loaded.tokenizer)
        self.followed = dict(followed or {})

    def serving(self, made: Prepared, scratch: Path) -> AbstractContextManager[None]:
        """Answer as a variant inside the block: what it does is done to the model in memory."""
        return made.intervention.in_memory(self.loaded.moe, made)

    def lm_eval_model(self, batch_size: int, description: str) -> Any:
        """Return lm-eval's model around the model in memory, in the state it is in."""
        from harness.engines.lm_eval import language_model

        return language_model(self.loaded.moe.model, self.chat, self.loaded.ends, batch_size, description)

    def answer(self, batch: Sequence[Prompt], tokens: list[list[int]], how: Decoding) -> BatchResult:
        """Answer one batch, whose rendered prompts are these tokens."""
        import torch

        tokenizer, moe = self.loaded.tokenizer, self.loaded.moe
        encoded = tokenizer.pad({"input_ids": tokens}, padding_side="left", return_tensors="pt")
        encoded = encoded.to(self.loaded.device)
        recorder = RoutingCapture(moe, logits=how.capture == "logits") if how.capture else None
        reader = Reader(self.chat, self.loaded.ends, how.opening)
        try:
            with torch.inference_mode(), recorder.installed() if recorder else nullcontext():
                # Row b * answers + j is answer j to prompt b, from the first forward pass on.
                n = 1 if how.sampling is None else how.sampling.answers
                asked = {name: rows.repeat_interleave(n, dim=0) for name, rows in encoded.items()}
                whole, mask = self._generate(asked, how, reader, batch), asked["attention_mask"]
                new = whole[:, mask.shape[1] :]
                generated = self._generated(new, how, reader)
                prompt_tokens = mask.sum(dim=1).tolist()
                answers, starts = make_answers(
                    batch, how.sampling, prompt_tokens, generated, self.loaded.ends, reader
                )
                if recorder is None or how.capture is None:
                    return BatchResult(answers)
                lengths = torch.tensor(list(map(len, generated)), device=mask.device)
                masks = phase_masks(mask, lengths, torch.tensor(starts, device=mask.device))
                captured, token_ids = recorder.take(len(answers)), whole[:, : masks.shape[2]]
                return with_routing(answers, captured, masks, token_ids, moe, how.capture)
        except torch.OutOfMemoryError as error:
            raise HarnessError(
                f"out of memory while {len(batch)} prompts were answered: lower generation.batch_size"
            ) from error

    def _generate(
        self, asked: Mapping[str, torch.Tensor], how: Decoding, reader: Reader, batch: Sequence[Prompt]
    ) -> torch.Tensor:
        """Return prompts with their answers, [B * answers, P + G]."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        from harness.engines.sampling import Drawn

        model: Any = self.loaded.moe.model
        pad = self.loaded.tokenizer.pad_token_id
        rules = greedy(self.loaded.ends, pad, how.longest, self.followed)
        drawn, limits = LogitsProcessorList(), StoppingCriteriaList()
        if how.sampling is not None:
            ids, start = [prompt.id for prompt in batch], asked["input_ids"].shape[1]
            drawn.append(Drawn(how.sampling, ids, start, how.longest))
        if how.reasoning_tokens is not None:
            limits.append(_RowLimits(how, reader, self.loaded.ends))
        with decoding_by(model, rules):
            output: torch.Tensor = model.generate(
                **asked, generation_config=rules, logits_processor=drawn, stopping_criteria=limits
            )
        return output

    def _generated(self, new: torch.Tensor, how: Decoding, reader: Reader) -> list[list[int]]:
        """Return the tokens of each answer, its end token included, without what pads it."""
        lengths = self._lengths(new)
        rows = [row[:n] for row, n in zip(new.tolist(), lengths.tolist(), strict=True)]
        limits = [how.limit(reader) for _ in rows]
        return [
            row if limit is None else shortened(row, limit) for row, limit in zip(rows, limits, strict=True)
        ]

    def _lengths(self, new: torch.Tensor) -> torch.Tensor:
        """Return the tokens of each answer, its end token included, [B]."""
        import torch

        ends = torch.isin(new, torch.tensor(self.loaded.ends, device=new.device))
        before_end = (ends.cumsum(dim=1) == 0).sum(dim=1)
        return (before_end + 1).clamp(max=new.shape[1])


class _RowLimits:
    """Ends each row of a batch by a limit of its own; `generate` asks it after every token."""

    def __init__(self, how: Decoding, reader: Reader, ends: Collection[int]) -> None:
        self.how = how
        self.reader = reader
        self.ends = ends
        self._rows: list[tuple[list[int], Limit | None]] = []
        self._over: list[bool] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        last = input_ids[:, -1].tolist()
        if not self._rows:
            self._rows = [([], self.how.limit(self.reader)) for _ in last]
            self._over = [False] * len(last)
        for i, (token, (row, limit)) in enumerate(zip(last, self._rows, strict=True)):
            if not self._over[i]:
                row.append(token)
                self._over[i] = token in self.ends or (limit is not None and limit.is_reached(row))
        return input_ids.new_tensor(self._over).bool()


def engine_in_memory(config: RunConfig, loaded: LoadedModel) -> TransformersEngine:
    """Return the engine around a loaded model, with a run's settings."""
    rules = followed(loaded.ref.path, config.generation.follow)
    return TransformersEngine(loaded, config.generation.batch_size, chat_of(config, loaded.tokenizer), rules)


class TransformersKind(EngineKind):
    """The engine that answers with the model in memory, on any machine and as any variant."""

    name = "transformers"

    def open(self, config: RunConfig, model: ModelInMemory, prompts: Sequence[Prompt]) -> TransformersEngine:
        """Return the engine; it loads the model."""
        return engine_in_memory(config, model.loaded)


TRANSFORMERS = TransformersKind()
