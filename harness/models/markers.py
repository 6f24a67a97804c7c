"""Text that looks like a control token stays text: `<|im_end|>` in a prompt must not end the user's turn.

A tokenizer reads the spelling of a control token as that token, wherever it stands. So a break, which no text has, is
put inside each such spelling before the chat template is applied; the control tokens that the template writes itself
have none. The rendered text is then encoded in pieces, from break to break, so that no spelling is whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters for private use, in an order that no text has.
BREAK = "\ue0fb\ue1c7\ue0fb"
# A token spelled like this controls, whatever the tokenizer says: `<|call|>`, DeepSeek's `<｜User｜>`.
_CONTROL = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)


class Markers:
    """The spellings of a tokenizer's control tokens.

    Those that it calls special, those that its chat template writes, and those between `<|` and `|>`. Added tokens of
    other kinds, such as runs of spaces or HTML tags, are text.

    Args:
        tokenizer: any.
        template: the text of its chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str = "") -> None:
        self.tokenizer = tokenizer
        self._template = template

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each control token by its spelling."""
        special = set(self.tokenizer.all_special_tokens)
        added: dict[int, Any] = self.tokenizer.added_tokens_decoder
        return {
            token.content: id
            for id, token in added.items()
            if token.content.strip()
            and (
                token.special
                or token.content in special
                or token.content in self._template
                or _CONTROL.fullmatch(token.content)
            )
        }

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        spellings = sorted(self.ids, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, spellings)) or "(?!)")

    def found(self, text: str) -> str | None:
        """Return the first control token that a text spells, or None."""
        match = self._pattern.search(text)
        return match and match[0]

    def broken(self, text: str) -> str:
        """Return a text with a break inside every spelling of a control token; most texts have none.

        Raises:
            BadInputError: a control token is a single character, which cannot be broken.
        """
        # One after another, since spellings may overlap.
        while match := self._pattern.search(text):
            if len(match[0]) == 1:
                raise BadInputError(
                    f"a prompt has {match[0]!r}, which this tokenizer can only read as a control token"
                )
            at = match.start() + len(match[0]) // 2
            text = f"{text[:at]}{BREAK}{text[at:]}"
        return text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts, some of which may have breaks; nothing is added to them."""
        if not texts:  # a tokenizer cannot be given nothing
            return []
        if not any(BREAK in text for text in texts):
            return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
        return [self._in_pieces(text) for text in texts]

    def encode_whole(self, text: str, encode: Callable[[str], list[int]] | None = None) -> list[int]:
        """Return the token ids of a text that may have breaks, with what the tokenizer puts around a text.

        Args:
            text: the text.
            encode: how texts are encoded otherwise; by default, by the tokenizer.
        """
        encode = encode or (lambda text: list(self.tokenizer(text)["input_ids"]))
        # Whether something is put before a text may depend on its beginning.
        bos = str(self.tokenizer.bos_token or "")
        probe = f"{bos}a" if bos and text.startswith(bos) else "a"
        plain, whole = self.encode([probe])[0], encode(probe)
        before = next(
            (at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), len(whole) - len(plain)
        )
        return [*whole[:before], *self.encode([text])[0], *whole[before + len(plain) :]]

    def _in_pieces(self, text: str) -> list[int]:
        first, found, others = text.partition(BREAK)
        ids = list(self.tokenizer(first, add_special_tokens=False)["input_ids"]) if first else []
        return ids + self.continuation(others) if found else ids

    def continuation(self, text: str) -> list[int]:
        """Return the token ids of a text, which may have breaks, that is written behind another."""
        return [id for piece in text.split(BREAK) for id in self._continued(piece)]

    def _continued(self, piece: str) -> list[int]:
        """Return the ids of text that continues another: without the space that some put before a text."""
        encode = self.tokenizer
        line = list(encode("\n", add_special_tokens=False)["input_ids"])
        ids = list(encode(f"\n{piece}", add_special_tokens=False)["input_ids"])
        if ids[: len(line)] == line:
            return ids[len(line) :]
        return list(encode(piece, add_special_tokens=False)["input_ids"])
