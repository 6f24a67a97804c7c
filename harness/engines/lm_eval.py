"""lm-eval's model classes, with the harness's progress bar."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.base.progress import progress
from harness.models.markers import BREAK
from harness.models.thoughts import Reader

if TYPE_CHECKING:
    from harness.models.chat import ChatTemplate
    from harness.models.markers import Markers


def adapted(kind: Any, description: str, markers: Markers) -> Any:
    """Return one of lm-eval's model classes with our progress bar in place of its own; it calls `self.advance`.

    Items are text: what spells a control token in them is none. Items without such spellings are encoded by lm-eval.

    Args:
        kind: lm-eval's class.
        description: of the progress bar.
        markers: the control tokens of the model's tokenizer.
    """

    class Adapted(kind):  # type: ignore[misc]
        advance: Callable[[int], None]
        # Set before a task: without the chat template no model is asked to think, and all of an item is text.
        as_chat = False

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(self._broken(requests), disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood_rolling(self._broken(requests), disable_tqdm=disable_tqdm)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            with progress(description, len(requests), "answers") as self.advance:
                return super().generate_until(self._broken(requests), disable_tqdm=True)

        def apply_chat_template(self, chat_history: Any, *args: Any, **kwargs: Any) -> Any:
            turns = [turn | {"content": markers.broken(turn["content"])} for turn in chat_history]
            return super().apply_chat_template(turns, *args, **kwargs)

        def tok_encode(self, string: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(string, str):
                if not any(BREAK in each for each in string):
                    return super().tok_encode(string, *args, **kwargs)
                return [self.tok_encode(each, *args, **kwargs) for each in string]
            if BREAK not in string:
                return super().tok_encode(string, *args, **kwargs)
            return markers.encode_whole(
                string, lambda text: super(Adapted, self).tok_encode(text, *args, **kwargs)
            )

        def tok_batch_encode(
            self,
            strings: Any,
            padding_side: str = "left",
            left_truncate_len: int | None = None,
            truncation: bool = False,
        ) -> Any:
            if not any(BREAK in each for each in strings):
                return super().tok_batch_encode(strings, padding_side, left_truncate_len, truncation)
            ids = [self.tok_encode(each) for each in strings]
            padded = self.tokenizer.pad({"input_ids": ids}, padding_side=padding_side, return_tensors="pt")
            last = slice(-left_truncate_len if left_truncate_len else None, None)
            return padded["input_ids"][:, last], padded["attention_mask"][:, last]

        def _broken(self, requests: Any) -> list[Any]:
            """Return the requests with a break in each control token that an item spells."""
            return [
                dataclasses.replace(
                    request, arguments=tuple(self._broken_text(*at) for at in enumerate(request.args))
                )
                for request in requests
            ]

        def _broken_text(self, place: int, given: Any) -> Any:
            # The first is the context; settings of generation follow it, or a choice.
            is_text = isinstance(given, str) and not (self.as_chat and place == 0)
            return markers.broken(given) if is_text else given

    return Adapted


def answer_alone(reader: Reader, tokens: Sequence[int], longest: int) -> list[int]:
    """Return the tokens of an answer, so many at most, without the reasoning before it; none where it never began."""
    at = reader.read(tokens).at
    return [] if at is None else list(tokens[at : at + longest])


def language_model(
    model: Any, chat: ChatTemplate, ends: Collection[int], batch_size: int, description: str
) -> Any:
    """Return lm-eval's model around a transformers model, as it is in memory: its hooks and changed weights count.

    It reports its progress in rows sent through the network. Where the model thinks, reasoning has a budget of its own,
    and what a task ends an answer with does not end reasoning.
    """
    import torch
    from lm_eval.models.huggingface import HFLM

    class WithProgress(adapted(HFLM, description, chat.markers)):  # type: ignore[misc]
        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, **kwargs: Any) -> Any:
            # Choices of one token share their question's row.
            rows = {tuple(context + continuation[:-1]) for _, context, continuation in requests}
            with progress(description, len(rows), "rows") as self.advance:
                return super()._loglikelihood_tokens(requests, disable_tqdm=True, **kwargs)

        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            logits = super()._model_call(inps, *args, **kwargs)
            self.advance(len(inps))
            return logits

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **kwargs: Any) -> Any:
            if self.as_chat and chat.thinking.tokens is not None:
                tokens = self._generate_answers(context, max_length, chat.thinking.tokens, **kwargs)
            else:
                tokens = super()._model_generate(context, max_length, stop, **kwargs)
            self.advance(len(context))
            return tokens

        def _generate_answers(self, context: Any, max_length: int, budget: int, **kwargs: Any) -> Any:
            width, reader = context.shape[1], Reader(chat, ends)
            end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
            whole = super()._model_generate(context, max_length + budget, [end], **kwargs)
            rows = [answer_alone(reader, row, max_length - width) for row in whole[:, width:].tolist()]
            answers = whole.new_full((len(rows), max(map(len, rows))), self.tokenizer.pad_token_id)
            for answer, row in zip(answers, rows, strict=True):
                answer[: len(row)] = answer.new_tensor(row)
            return torch.cat([whole[:, :width], answers], dim=1)

    # lm-eval sets a padding token and the padding side, and knows no choice between templates.
    tokenizer = copy.deepcopy(chat.tokenizer)
    tokenizer.chat_template = chat.source or None
    return WithProgress(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        # In bfloat16 the log-likelihoods of different choices would often be the same number.
        softmax_dtype="float32",
        chat_template_args=dict(chat.arguments),
    )


@contextmanager
def replaced(owner: object, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a library's module or object inside the block."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
