"""The transformers engine: batched generation, greedy or sampled, with routing captured on the way.

Batches are made once, from the prompts' lengths, so that a resumed run meets the same batches: in bfloat16 an
answer depends on what it is padded with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.engines.answers import make_answers, with_routing
from harness.engines.base import BatchResult, Decoding, Engine, EngineKind
from harness.models.chat import ChatTemplate
from harness.models.decoding import decoding_by, followed, greedy
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
        chat_template_kwargs: passed on to the chat template.
        followed: generation settings of the checkpoint that are followed.
    """

    name = "transformers"

    def __init__(
        self,
        loaded: LoadedModel,
        batch_size: int,
        chat_template_kwargs: dict[str, Any] | None = None,
        followed: Mapping[str, Any] | None = None,
    ) -> None:
        self.loaded = loaded
        self.batch_size = batch_size
        self.chat = ChatTemplate(loaded.tokenizer, chat_template_kwargs)
        self.followed = dict(followed or {})

    def serving(self, made: Prepared, scratch: Path) -> AbstractContextManager[None]:
        """Answer as a variant inside the block: what it does is done to the model in memory."""
        return made.intervention.in_memory(self.loaded.moe, made)

    def lm_eval_model(self, batch_size: int, description: str) -> Any:
        """Return lm-eval's model around the model in memory, in the state it is in."""
        from harness.engines.lm_eval import language_model

        return language_model(self.loaded.moe.model, self.chat, batch_size, description)

    def answer(self, batch: Sequence[Prompt], tokens: list[list[int]], how: Decoding) -> BatchResult:
        """Answer one batch, whose rendered prompts are these tokens."""
        import torch

        tokenizer, moe = self.loaded.tokenizer, self.loaded.moe
        encoded = tokenizer.pad({"input_ids": tokens}, padding_side="left", return_tensors="pt")
        encoded = encoded.to(self.loaded.device)
        recorder = RoutingCapture(moe, logits=how.capture == "logits") if how.capture else None
        try:
            with torch.inference_mode(), recorder.installed() if recorder else nullcontext():
                # Row b * answers + j is answer j to prompt b, from the first forward pass on.
                n = 1 if how.sampling is None else how.sampling.answers
                asked = {name: rows.repeat_interleave(n, dim=0) for name, rows in encoded.items()}
                whole, mask = self._generate(asked, how, batch), asked["attention_mask"]
                new = whole[:, mask.shape[1] :]
                lengths = self._lengths(new)
                generated = [row[:n] for row, n in zip(new.tolist(), lengths.tolist(), strict=True)]
                prompt_tokens = mask.sum(dim=1).tolist()
                answers = make_answers(
                    batch, how.sampling, prompt_tokens, generated, self.loaded.ends, tokenizer
                )
                if recorder is None or how.capture is None:
                    return BatchResult(answers)
                masks = phase_masks(mask, lengths)
                captured, token_ids = recorder.take(len(answers)), whole[:, : masks.shape[2]]
                return with_routing(answers, captured, masks, token_ids, moe, how.capture)
        except torch.OutOfMemoryError as error:
            raise HarnessError(
                f"out of memory while {len(batch)} prompts were answered: lower generation.batch_size"
            ) from error

    def _generate(
        self, asked: Mapping[str, torch.Tensor], how: Decoding, batch: Sequence[Prompt]
    ) -> torch.Tensor:
        """Return prompts with their answers, [B * answers, P + G]."""
        from transformers import LogitsProcessorList

        from harness.engines.sampling import Drawn

        model: Any = self.loaded.moe.model
        pad = self.loaded.tokenizer.pad_token_id
        rules = greedy(self.loaded.ends, pad, how.max_new_tokens, self.followed)
        drawn = LogitsProcessorList()
        if how.sampling is not None:
            ids, start = [prompt.id for prompt in batch], asked["input_ids"].shape[1]
            drawn.append(Drawn(how.sampling, ids, start, how.max_new_tokens))
        with decoding_by(model, rules):
            output: torch.Tensor = model.generate(**asked, generation_config=rules, logits_processor=drawn)
        return output

    def _lengths(self, new: torch.Tensor) -> torch.Tensor:
        """Return the tokens of each answer, its end token included, [B]."""
        import torch

        ends = torch.isin(new, torch.tensor(self.loaded.ends, device=new.device))
        before_end = (ends.cumsum(dim=1) == 0).sum(dim=1)
        return (before_end + 1).clamp(max=new.shape[1])


def engine_in_memory(config: RunConfig, loaded: LoadedModel) -> TransformersEngine:
    """Return the engine around a loaded model, with a run's settings."""
    generation = config.generation
    rules = followed(loaded.ref.path, generation.follow)
    return TransformersEngine(loaded, generation.batch_size, generation.chat_template_kwargs, rules)


class TransformersKind(EngineKind):
    """The engine that answers with the model in memory, on any machine and as any variant."""

    name = "transformers"

    def open(self, config: RunConfig, model: ModelInMemory, prompts: Sequence[Prompt]) -> TransformersEngine:
        """Return the engine; it loads the model."""
        return engine_in_memory(config, model.loaded)


TRANSFORMERS = TransformersKind()
