"""lm-eval's model classes, with the harness's progress bar."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.base.progress import progress
from harness.models.thoughts import Reader

if TYPE_CHECKING:
    from harness.models.chat import ChatTemplate


def progressing(kind: Any, description: str) -> Any:
    """Return one of lm-eval's model classes with our progress bar in place of its own; it calls `self.advance`."""

    class Progressing(kind):  # type: ignore[misc]
        advance: Callable[[int], None]
        # Set before a task: without the chat template no model is asked to think.
        as_chat = False

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            with progress(description, len(requests), "answers") as self.advance:
                return super().generate_until(requests, disable_tqdm=True)

    return Progressing


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

    class WithProgress(progressing(HFLM, description)):  # type: ignore[misc]
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
