"""Chat templates: from a user's prompt to the text that a model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "harness-probe-of-the-system-role"


class ChatTemplate:
    """Renders prompts with a tokenizer's chat template.

    Args:
        tokenizer: has a chat template (`load_tokenizer` checked).
        arguments: passed on to the template, such as `enable_thinking`.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any] | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.arguments = dict(arguments or {})
        # Every variant is asked the same prompts.
        self._known: dict[tuple[str, str | None, str], list[int]] = {}

    def render(self, prompt: str, system_prompt: str | None = None, opening: str = "") -> str:
        """Return the text that ends where the model's answer begins, or continues an opening given to it.

        A template without a system role gets the system prompt before the user's message.
        """
        if system_prompt is None:
            messages = [{"role": "user", "content": prompt}]
        elif self.has_system_role():
            messages = [{"role": "system", "content": system_prompt}, {"role": "user", "content": prompt}]
        else:
            messages = [{"role": "user", "content": f"{system_prompt}\n\n{prompt}"}]
        return self._apply(messages) + opening

    def has_system_role(self) -> bool:
        """Say whether the template shows a system message; some raise an error, some drop it silently."""
        from jinja2 import TemplateError

        try:
            text = self._apply([{"role": "system", "content": _PROBE}, {"role": "user", "content": "hi"}])
        except (TemplateError, BadInputError):
            return False
        return _PROBE in text

    def tokens(
        self, prompts: Sequence[str], system_prompt: str | None = None, opening: str = ""
    ) -> list[list[int]]:
        """Return the token ids of rendered prompts.

        The template writes the special tokens itself, so the tokenizer must not add them again.
        """
        unknown = [
            prompt for prompt in dict.fromkeys(prompts) if (prompt, system_prompt, opening) not in self._known
        ]
        if unknown:
            texts = [self.render(prompt, system_prompt, opening) for prompt in unknown]
            encoded = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            for prompt, ids in zip(unknown, encoded, strict=True):
                self._known[prompt, system_prompt, opening] = list(ids)
        return [list(self._known[prompt, system_prompt, opening]) for prompt in prompts]

    def _apply(self, messages: list[dict[str, str]]) -> str:
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **self.arguments
        )
        if not isinstance(text, str) or not text:
            raise BadInputError("the chat template renders nothing for a user's message")
        return text
