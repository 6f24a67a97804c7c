"""lm-eval's model classes, with the harness's progress bar."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.base.progress import progress

if TYPE_CHECKING:
    from harness.models.chat import ChatTemplate


def progressing(kind: Any, description: str) -> Any:
    """Return one of lm-eval's model classes with our progress bar in place of its own; it calls `self.advance`."""

    class Progressing(kind):  # type: ignore[misc]
        advance: Callable[[int], None]

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            with progress(description, len(requests), "answers") as self.advance:
                return super().generate_until(requests, disable_tqdm=True)

    return Progressing


def language_model(model: Any, chat: ChatTemplate, batch_size: int, description: str) -> Any:
    """Return lm-eval's model around a transformers model, as it is in memory: its hooks and changed weights count.

    It reports its progress in rows sent through the network.
    """
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

        def _model_generate(self, context: Any, *args: Any, **kwargs: Any) -> Any:
            tokens = super()._model_generate(context, *args, **kwargs)
            self.advance(len(context))
            return tokens

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
