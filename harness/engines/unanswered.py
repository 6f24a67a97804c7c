"""lm-eval's requests to a model that answers none of them: how large its forward passes would be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from harness.engines.lm_eval import language_model

if TYPE_CHECKING:
    from harness.models.chat import ChatTemplate

_ENCODED = 256


class ForwardPass(NamedTuple):
    """The size of a forward pass.

    Attributes:
        rows: per batch.
        tokens: per row, padding included.
        repeated: whether a task has more than one, so that the results of the one before are still in memory.
    """

    rows: int
    tokens: int
    repeated: bool


class Unanswered:
    """What lm-eval takes for an engine: it notes the largest forward pass of each task that reads likelihoods.

    Generated answers are left out: there, a model computes the logits of the last token alone.

    Args:
        model: without weights.
        chat: renders the items that are sent as chats.

    Attributes:
        passes: what was noted.
    """

    def __init__(self, model: Any, chat: ChatTemplate) -> None:
        self._model = model
        self.chat = chat
        self.passes: list[ForwardPass] = []

    def lm_eval_model(self, batch_size: int, description: str) -> Any:
        """Return lm-eval's model."""
        lm = language_model(self._model, self.chat, [], batch_size, description)

        def note(texts: set[str], rows: int) -> None:
            # The longest in characters have nearly always the most tokens.
            lengths = [len(lm.tok_encode(text)) for text in sorted(texts, key=len)[-_ENCODED:]]
            # The model is not sent the last token.
            tokens = min(max(lengths) - 1, lm.max_length)
            self.passes.append(ForwardPass(min(rows, batch_size), tokens, rows > batch_size))

        def loglikelihood(requests: Any, **_: Any) -> list[tuple[float, bool]]:
            texts = {context + choice for context, choice in (request.args for request in requests)}
            note(texts, len(texts))
            return [(0.0, False)] * len(requests)

        def loglikelihood_rolling(requests: Any, **_: Any) -> list[float]:
            texts = {request.args[0] for request in requests}
            note(texts, len(texts))
            return [0.0] * len(requests)

        def generate_until(requests: Any, **_: Any) -> list[str]:
            return [""] * len(requests)

        lm.loglikelihood, lm.loglikelihood_rolling = loglikelihood, loglikelihood_rolling
        lm.generate_until = generate_until
        return lm
