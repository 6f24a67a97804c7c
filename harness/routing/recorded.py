"""Files of routing that another engine recorded: JSONL, one answered prompt per line, with the engine's own array.

A line may hold the whole response of an OpenAI-style server or of SGLang's `/generate`; what it says need not be said
beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.base.errors import BadInputError
from harness.base.files import read_jsonl
from harness.base.schema import validated
from harness.data.reasoning import split
from harness.data.task import Kind
from harness.routing.arrays import decoded, fitted
from harness.routing.counts import RoutingCounts

if TYPE_CHECKING:
    from harness.models.moe import MoEModel
    from harness.routing.arrays import Array

_FINISHED = {"length": "length", "max_tokens": "length"}


class RecordedAnswer(BaseModel):
    """One line."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    task: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The prompt's task, one of the harness's or any other."""
    id: str | None = None
    """The prompt's id in the task; of a task of the harness either this or `prompt` will do."""
    prompt: str | None = None
    """The prompt's text, as the user said it."""
    kind: Kind | None = None
    """harmful or benign, where the harness does not know the task."""
    category: str | None = None
    """What the prompt is about, where the harness does not know the task."""
    prompt_tokens: int | None = Field(None, ge=1)
    """Tokens of the rendered prompt."""
    generated_tokens: int | None = Field(None, ge=1)
    """Tokens of reasoning and answer, the end token included."""
    reasoning_tokens: int | None = Field(None, ge=0)
    """Generated tokens before the answer's first; all of them where it never began."""
    finish_reason: Literal["stop", "length"] = "stop"
    """Whether the token limit ended the answer."""
    response: str | dict[str, Any] = ""
    """The answer's text, or the whole response of the server."""
    routed_experts: str | list[Any] | None = None
    """The engine's array: base64 of `.npy` or of int32 numbers, or lists of numbers."""


class Recorded:
    """One line, complete: what was recorded of an answer.

    Attributes:
        where: file and row, for messages.
        line: as the file has it.
        response: the answer's text.
        finish_reason: "length" where the token limit ended it.
        reasoning: the text before the answer, where the server gave it.
        prompt_tokens: of the rendered prompt.
        generated_tokens: of reasoning and answer.
        reasoning_tokens: of those, before the answer's first.
    """

    def __init__(self, where: str, line: RecordedAnswer) -> None:
        self.where, self.line = where, line
        said: dict[str, Any] = {"response": line.response}
        if isinstance(line.response, dict):
            said = _said(line.response)
            if not said:
                raise BadInputError(
                    f"{where}: response: expected that of an OpenAI-style server with one choice, or of SGLang's "
                    "/generate"
                )
        self.response = str(said.get("response") or "")
        self.reasoning: str | None = said.get("reasoning") or None
        finished = said.get("finish_reason")
        self.finish_reason: Literal["stop", "length"] = (
            "length" if "length" in (line.finish_reason, _FINISHED.get(str(finished))) else "stop"
        )
        self.prompt_tokens = self._number("prompt_tokens", line.prompt_tokens, said)
        self.generated_tokens = self._number("generated_tokens", line.generated_tokens, said)
        self.reasoning_tokens = self._before_answer(said)
        given = [line.routed_experts] if line.routed_experts is not None else said.get("routed_experts", [])
        if not given:
            raise BadInputError(f"{where}: routed_experts: missing")
        self._given: list[Any] = given

    def _number(self, name: str, given: int | None, said: Mapping[str, Any]) -> int:
        known = said.get(name)
        if given is not None and known is not None and given != known:
            raise BadInputError(f"{self.where}: {name}: {given}, but the server's response says {known}")
        number = known if given is None else given
        if not isinstance(number, int) or number < 1:
            raise BadInputError(f"{self.where}: {name}: missing; expected how many there were")
        return number

    def _before_answer(self, said: Mapping[str, Any]) -> int:
        number = self.line.reasoning_tokens
        if number is None:
            number = said.get("reasoning_tokens")
        thought = self.reasoning or split(self.response).reasoning
        if number is None and thought and not self.response:
            return self.generated_tokens
        if thought and not number:
            raise BadInputError(
                f"{self.where}: reasoning_tokens: missing; expected how many generated tokens come before the answer's "
                "first, since the model thought before it"
            )
        if (number or 0) > self.generated_tokens:
            raise BadInputError(
                f"{self.where}: reasoning_tokens: {number}, expected at most the {self.generated_tokens} generated"
            )
        return number or 0

    def experts(self, moe: MoEModel) -> Array:
        """Return the experts of each routed token, [T, L, k].

        Raises:
            BadInputError: the array does not fit the model or the number of tokens, or cannot be what a router chose.
        """
        try:
            parts = [decoded(part) for part in self._given]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return fitted(whole, self.prompt_tokens + self.generated_tokens - 1, moe)
        except ValueError as error:
            raise BadInputError(f"{self.where}: routed_experts: {error}") from None

    def counts(self, id: str, moe: MoEModel) -> RoutingCounts:
        """Count the routing as capture does; gate weights are not recorded.

        Args:
            id: of the prompt.
            moe: the model, with or without weights.
        """
        import torch

        from harness.routing.capture import Captured, count, phase_masks

        experts = torch.from_numpy(self.experts(moe).astype(np.int16)).permute(1, 0, 2).unsqueeze(1)
        masks = phase_masks(
            torch.ones(1, self.prompt_tokens, dtype=torch.int64),
            torch.tensor([self.generated_tokens]),
            torch.tensor([self.reasoning_tokens]),
        )
        captured = Captured(experts, torch.ones(experts.shape), None)
        return replace(count(captured, masks, moe, [id]), mass=None)


def read_recorded(path: Path) -> Iterator[Recorded]:
    """Yield the lines of a file.

    Raises:
        BadInputError: the file is missing, or a line is not JSON, lacks something or contradicts itself.
    """
    rows = read_jsonl(path)
    if not rows:
        raise BadInputError(f"{path}: expected one answered prompt per line, found none")
    for number, row in enumerate(rows, start=1):
        where = f"{path}: row {number}"
        yield Recorded(where, validated(row, where, RecordedAnswer))


def _said(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a server's response says, by the names of a line; absent or null where it says nothing."""
    meta = response.get("meta_info")
    if isinstance(meta, Mapping):  # SGLang's /generate
        finished = meta.get("finish_reason")
        return {
            "response": response.get("text"),
            "finish_reason": finished.get("type") if isinstance(finished, Mapping) else finished,
            "prompt_tokens": meta.get("prompt_tokens"),
            "generated_tokens": meta.get("completion_tokens"),
            "reasoning_tokens": meta.get("reasoning_tokens"),
            "routed_experts": _given(meta.get("routed_experts")),
        }
    choices = response.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], Mapping):
        return {}
    choice, usage = choices[0], _mapping(response.get("usage"))
    message = _mapping(choice.get("message"))
    # SGLang's extension is beside the choices or in each, by version.
    extensions = [_mapping(each.get(name)) for each in (choice, response) for name in ("sglext", "sgl_ext")]
    routed = [choice.get("routed_experts"), *(each.get("routed_experts") for each in extensions)]
    own = next((each for each in routed if each is not None), None)
    return {
        "response": message.get("content") if message else choice.get("text"),
        "reasoning": message.get("reasoning_content") or message.get("reasoning"),
        "finish_reason": choice.get("finish_reason"),
        "prompt_tokens": usage.get("prompt_tokens"),
        "generated_tokens": usage.get("completion_tokens"),
        "reasoning_tokens": usage.get(
            "reasoning_tokens", _mapping(usage.get("completion_tokens_details")).get("reasoning_tokens")
        ),
        # vLLM 0.21 gave the prompt's rows apart.
        "routed_experts": _given(response.get("prompt_routed_experts"), own),
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _given(*parts: object) -> list[object]:
    return [part for part in parts if part is not None]
