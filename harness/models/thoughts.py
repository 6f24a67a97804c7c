"""Where a model's answer begins in the tokens that it generated: the one place that tells reasoning from answer."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.data.reasoning import Split, may_be_an_opening, split
from harness.models.thinking import is_reasoning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.models.chat import ChatTemplate

# A limit looks for the beginning of an answer at the first tokens, at a few tokens from one that may end reasoning,
# and now and then, so that long thoughts are not decoded for every token of theirs.
_FIRST, _NEAR, _EVERY = 8, 4, 16
_CLOSING = frozenset(">]}")


class Reading(NamedTuple):
    """What a model wrote, in two parts.

    Attributes:
        response: the answer; "" where it never began.
        reasoning: what came before it; None where there was none, so that the whole text is the answer.
        at: how many tokens come before the answer's first; None where it never began.
    """

    response: str
    reasoning: str | None
    at: int | None


class Reader:
    """Tells reasoning from answer by the tokenizer's own response schema, else by a table of known forms.

    Args:
        chat: says what the template puts before an answer.
        ends: tokens that end an answer.
        opening: a given beginning of the answer, which is part of the prompt.
    """

    def __init__(self, chat: ChatTemplate, ends: Collection[int], opening: str = "") -> None:
        self.tokenizer: PreTrainedTokenizerBase = chat.tokenizer
        self.opened = chat.opened(opening)
        self._opening = opening.strip()
        self._ends = frozenset(ends)
        self._has_schema = getattr(self.tokenizer, "response_template", None) is not None
        self._closing: dict[int, bool] = {}

    def read(self, tokens: Sequence[int], *, so_far: bool = False) -> Reading:
        """Read what a model wrote, its end token included; `so_far` says that more may follow."""
        raw, parts = self._split(tokens, so_far)
        if parts.answer is None:
            return Reading("", parts.reasoning or raw.strip(), None)
        answer = parts.answer.removeprefix(self._opening).strip() if self._opening else parts.answer
        place = raw.rfind(answer)
        if place < 0:  # several messages of the final channel; the first begins it
            place = max(raw.find(answer.split("\n\n")[0]), 0)
        if not parts.reasoning and not raw[:place].strip():
            # To the letter what it was before anything was split.
            return Reading(
                str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip(), None, 0
            )
        response = self._without_special(answer)
        if response:
            return Reading(response, parts.reasoning, self._holding(tokens, place))
        wrote_nothing = not parts.reasoning and not self._without_special(raw)
        return Reading("", None, 0) if wrote_nothing else Reading("", parts.reasoning, None)

    def begins(self, tokens: Sequence[int]) -> int | None:
        """Return how many tokens come before the answer that these tokens have begun; None where they have not."""
        reading = self.read(tokens, so_far=True)
        return None if not reading.response or may_be_an_opening(reading.response) else reading.at

    def may_close(self, token: int) -> bool:
        """Say whether reasoning may end with a token."""
        if token not in self._closing:
            self._closing[token] = not _CLOSING.isdisjoint(self.tokenizer.decode([token]))
        return self._closing[token]

    def _split(self, tokens: Sequence[int], so_far: bool) -> tuple[str, Split]:
        """Return the raw text and its parts."""
        kept = list(tokens)
        while kept and kept[-1] in self._ends:
            kept.pop()
        raw = self._decode(kept)
        if not self._has_schema:
            return raw, split(raw, self.opened, so_far=so_far)
        try:
            message = self.tokenizer.parse_response(raw, prefix=self.opened)
        except ValueError:
            # A broken call of a tool, say: the schema has no word for it, and there is a text all the same.
            return raw, split(raw, self.opened, so_far=so_far)
        thoughts = [str(value).strip() for name, value in message.items() if is_reasoning(name)]
        content = message.get("content")
        if content is None and not thoughts:  # fields that are empty are left out
            return raw, split(raw, self.opened, so_far=so_far)
        return raw, Split("\n\n".join(thoughts), None if content is None else str(content).strip())

    def _without_special(self, text: str) -> str:
        for special in self.tokenizer.all_special_tokens:
            text = text.replace(special, "")
        return text.strip()

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def _holding(self, tokens: Sequence[int], place: int) -> int:
        """Return the number of the token that holds a character of the raw text."""
        return bisect_right(range(len(tokens)), place, key=lambda i: len(self._decode(tokens[: i + 1])))


class Limit:
    """Ends one answer: after so many tokens of its own, or where it did not begin within so many.

    It goes by the tokens so far alone, so that engines that stop at once and engines that shorten afterwards agree.

    Args:
        reader: finds the beginning.
        reasoning_tokens: within how many tokens the answer must begin.
        max_new_tokens: the longest answer.
    """

    def __init__(self, reader: Reader, reasoning_tokens: int, max_new_tokens: int) -> None:
        self.reader = reader
        self.reasoning_tokens = reasoning_tokens
        self.max_new_tokens = max_new_tokens
        self._at: int | None = None

    def is_reached(self, tokens: Sequence[int]) -> bool:
        """Say whether these tokens are all that there may be; asked with each token more."""
        n = len(tokens)
        if self._at is None and (
            n <= _FIRST
            or n % _EVERY == 0
            or n >= self.reasoning_tokens
            or any(map(self.reader.may_close, tokens[-_NEAR:]))
        ):
            self._at = self.reader.begins(tokens)
        return n >= self.reasoning_tokens if self._at is None else n - self._at >= self.max_new_tokens


def shortened(tokens: Sequence[int], limit: Limit) -> list[int]:
    """Return an answer's tokens up to where the limit ends it."""
    for n in range(1, len(tokens) + 1):
        if limit.is_reached(tokens[:n]):
            return list(tokens[:n])
    return list(tokens)
