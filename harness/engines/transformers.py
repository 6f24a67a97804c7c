"""The transformers engine: batched greedy generation, with routing captured on the way.

Batches are made once, from the prompts' lengths, so that a resumed run meets the same batches: in bfloat16 an
answer depends on what it is padded with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.engines.chat import ChatTemplate
from harness.errors import HarnessError
from harness.routing.capture import RoutingCapture, count, phase_masks
from harness.routing.counts import RoutingCounts

if TYPE_CHECKING:
    import torch

    from harness.data.prompts import Prompt
    from harness.models.load import LoadedModel


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, as it is kept in responses/TASK.jsonl."""

    id: str
    prompt: str
    response: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    generated_tokens: int

    def row(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


class BatchResult(NamedTuple):
    """The answers of one batch, and its routing counts where they were asked for."""

    responses: list[Response]
    routing: RoutingCounts | None


class TransformersEngine:
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

    def batches(self, prompts: Sequence[Prompt], system_prompt: str | None = None) -> list[list[Prompt]]:
        """Share prompts out into batches of similar length, the longest first (they need the most memory)."""
        lengths = [len(ids) for ids in self.chat.tokens([prompt.text for prompt in prompts], system_prompt)]
        order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], prompts[i].id))
        return [
            [prompts[i] for i in order[at : at + self.batch_size]]
            for at in range(0, len(order), self.batch_size)
        ]

    def generate(
        self,
        batches: Sequence[Sequence[Prompt]],
        max_new_tokens: int,
        system_prompt: str | None = None,
        capture: bool = False,
    ) -> Iterator[BatchResult]:
        """Answer batch after batch, greedily.

        Raises:
            HarnessError: out of memory (says which knob to turn).
        """
        recorder = RoutingCapture(self.loaded.moe) if capture else None
        for batch in batches:
            yield self._answer(batch, max_new_tokens, system_prompt, recorder)

    def _answer(
        self,
        batch: Sequence[Prompt],
        max_new_tokens: int,
        system_prompt: str | None,
        recorder: RoutingCapture | None,
    ) -> BatchResult:
        import torch

        encoded = self.loaded.tokenizer.pad(
            {"input_ids": self.chat.tokens([prompt.text for prompt in batch], system_prompt)},
            padding_side="left",
            return_tensors="pt",
        ).to(self.loaded.device)
        try:
            with torch.inference_mode():
                if recorder is None:
                    new, routing = self._new_tokens(encoded, max_new_tokens), None
                else:
                    with recorder.installed():
                        new = self._new_tokens(encoded, max_new_tokens)
                    masks_from = (encoded["attention_mask"], self._lengths(new))
                    ids = recorder.take(len(batch))
                    masks = phase_masks(*masks_from, columns=ids.shape[2])
                    routing = count(ids, masks, self.loaded.moe, [prompt.id for prompt in batch])
        except torch.OutOfMemoryError as error:
            raise HarnessError(
                f"out of memory while {len(batch)} prompts were answered: lower generation.batch_size"
            ) from error
        return BatchResult(self._responses(batch, encoded["attention_mask"], new), routing)

    def _new_tokens(self, encoded: Any, max_new_tokens: int) -> torch.Tensor:
        tokenizer = self.loaded.tokenizer
        model: Any = self.loaded.moe.model
        output: torch.Tensor = model.generate(
            **encoded,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            # A checkpoint's own sampling settings would only draw warnings under greedy decoding.
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id,
        )
        return output[:, encoded["input_ids"].shape[1] :]

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

    def _responses(self, batch: Sequence[Prompt], mask: torch.Tensor, new: torch.Tensor) -> list[Response]:
        ends = set(self._end_tokens())
        lengths = self._lengths(new).tolist()
        prompt_tokens = mask.sum(dim=1).tolist()
        texts = self.loaded.tokenizer.batch_decode(
            [row[:n] for row, n in zip(new.tolist(), lengths, strict=True)], skip_special_tokens=True
        )
        return [
            Response(
                id=prompt.id,
                prompt=prompt.text,
                response=text.strip(),
                finish_reason="stop" if row[n - 1] in ends else "length",
                prompt_tokens=int(p),
                generated_tokens=int(n),
            )
            for prompt, text, row, n, p in zip(
                batch, texts, new.tolist(), lengths, prompt_tokens, strict=True
            )
        ]
