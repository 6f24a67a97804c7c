"""Our model provider for inspect_ai: `--model harness/RUN@VARIANT` answers as a variant of a finished run."""

from __future__ import annotations

import atexit
import threading
from contextlib import ExitStack
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, modelapi
from inspect_ai.tool import ToolChoice, ToolInfo

from harness.base.errors import BadInputError
from harness.inspect.output import output_of

_SHORTEST = 256
"""The longest answer where neither inspect nor the run says how long one may be."""


@modelapi(name="harness")
class HarnessModel(ModelAPI):
    """A variant of a run: base, or what a prompt, a mask, an adapter, a delta or training made of it.

    The model is loaded once and answers one conversation at a time, greedily unless a temperature is asked for, as the
    run's variant did: through its chat template, with its thinking and the time of its clock.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008
        **model_args: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        from harness.pipeline.compare_runs import Answered
        from harness.pipeline.reopen import answering_again

        if model_args:
            raise BadInputError(
                f"model harness/{model_name}: takes no arguments, found {', '.join(model_args)}"
            )
        answered = Answered.read(model_name)
        if answered is None:
            raise BadInputError(f"model harness/{model_name}: no such run; expected harness/RUN@VARIANT")
        self._open = ExitStack()
        opened = self._open.enter_context(answering_again(answered.run, answered.variant))
        self._engine, self._made, self._settings = opened
        # inspect_ai closes no model that a command line named.
        atexit.register(self._open.close)
        # The model in memory is one.
        self._turn = threading.Lock()

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answer a conversation.

        Raises:
            BadInputError: there are tools, of which the variant knows nothing.
        """
        from anyio.to_thread import run_sync

        if tools:
            raise BadInputError(f"model harness/{self.model_name}: calls no tools, found {tools[0].name}")
        return await run_sync(self._generate, input, config)

    def _generate(self, messages: list[ChatMessage], config: GenerateConfig) -> ModelOutput:
        from harness.data.prompts import Prompt
        from harness.engines.base import Decoding, Sampling

        sampling = None
        if config.temperature or (config.num_choices or 1) > 1:
            sampling = Sampling(
                config.num_choices or 1, config.temperature or 1.0, config.top_p or 1.0, config.seed or 0
            )
        longest = config.max_tokens or self._settings.generation.max_new_tokens or _SHORTEST
        chat, turns = self._engine.chat, self._turns(messages)
        how = Decoding(longest, None, sampling, chat.thinking.tokens)
        prompt = Prompt("1", turns[-1]["content"], "inspect", "benign")
        with self._turn:
            answers = self._engine.answer([prompt], [chat.conversation(turns)], how).responses
        return output_of(self.model_name, answers)

    def _turns(self, messages: list[ChatMessage]) -> list[dict[str, str]]:
        """Return the conversation, the variant's own system prompt first."""
        system = [message.text for message in messages if message.role == "system"]
        if self._made.system_prompt is not None:
            system.insert(0, self._made.system_prompt)
        turns = [{"role": m.role, "content": m.text} for m in messages if m.role != "system"]
        if not turns:
            raise BadInputError(f"model harness/{self.model_name}: nothing is asked: no message of a user")
        if system and self._engine.chat.has_system_role():
            return [{"role": "system", "content": "\n\n".join(system)}, *turns]
        if system:
            turns[0]["content"] = "\n\n".join([*system, turns[0]["content"]])
        return turns

    def max_connections(self) -> int:
        """Return how many requests are worth making at once: the others wait."""
        return 1

    def max_tokens(self) -> int | None:
        """Return the longest answer unless the task says otherwise."""
        return self._settings.generation.max_new_tokens or _SHORTEST

    async def aclose(self) -> None:
        """Free the model."""
        self._open.close()
