"""The engine protocol: prompts in, answers and routing out, whichever library runs the model.

An engine is one file: an `Engine`, and an `EngineKind` that says before a run starts whether it can be used. It is
added with `ENGINES.add(name, kind)`; no other code names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness.base.fingerprint import fingerprint
from harness.base.registry import Registry, without
from harness.models.chat import ChatTemplate
from harness.models.thoughts import Limit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.config import RunConfig
    from harness.data.answer import Answer
    from harness.data.prompts import Prompt
    from harness.engines.in_memory import ModelInMemory
    from harness.interventions.base import Prepared
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel
    from harness.models.thoughts import Reader
    from harness.routing.counts import Record, RoutingCounts
    from harness.routing.tokens import RoutedTokens


class BatchResult(NamedTuple):
    """The answers of one batch, and its routing where that was asked for."""

    responses: list[Answer]
    routing: RoutingCounts | None = None
    tokens: RoutedTokens | None = None


class Sampling(NamedTuple):
    """Sampled answers instead of one greedy answer per prompt.

    Their ids are the prompt's with #1, #2, ... behind it; each counts the routing of the prompt again.

    Attributes:
        answers: per prompt.
        temperature: divides the logits.
        top_p: the share of probability whose likeliest tokens are drawn from.
        seed: of the run; with it a prompt's answers are drawn from the same random numbers as any variant.
    """

    answers: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    @property
    def numbers(self) -> range:
        """The numbers of a prompt's answers."""
        return range(1, self.answers + 1)

    def seed_of(self, prompt: str, number: int) -> int:
        """Return the seed of one answer, whatever it is generated together with."""
        return int(fingerprint([self.seed, prompt, number])[:15], 16)


class Decoding(NamedTuple):
    """How one batch is answered.

    Attributes:
        max_new_tokens: the longest answer.
        capture: how much of the routing to keep: counts, also single tokens, also router logits; None for nothing.
        sampling: draw answers; None for greedy decoding.
        reasoning_tokens: within how many tokens an answer must begin, beside its own; None where `max_new_tokens` is
            for all that is generated.
        opening: the given beginning of the answers, which the rendered prompts end with.
    """

    max_new_tokens: int
    capture: Record | None = None
    sampling: Sampling | None = None
    reasoning_tokens: int | None = None
    opening: str = ""

    @property
    def longest(self) -> int:
        """The most tokens that may be generated, reasoning and answer."""
        return self.max_new_tokens + (self.reasoning_tokens or 0)

    def limit(self, reader: Reader) -> Limit | None:
        """Return what ends an answer that is being generated, where the number of its tokens is not enough."""
        if self.reasoning_tokens is None:
            return None
        return Limit(reader, self.reasoning_tokens, self.max_new_tokens)


class Engine(Protocol):
    """Lets a model answer prompts.

    Attributes:
        name: as `--engine` and the registry have it.
        chat: renders prompts.
        batch_size: answers per batch.
    """

    name: str
    chat: ChatTemplate
    batch_size: int

    def batches(
        self, prompts: Sequence[Prompt], system_prompt: str | None = None, opening: str = "", answers: int = 1
    ) -> list[list[Prompt]]:
        """Share prompts out into batches of similar length, the longest first (they need the most memory).

        They are always the same ones, so that a resumed run continues with the next batch.

        Args:
            prompts: to ask.
            system_prompt: given to the model first.
            opening: the beginning of every answer.
            answers: of each prompt; all are in the prompt's batch.
        """
        asked = [prompt.asked for prompt in prompts]
        lengths = [len(ids) for ids in self.chat.tokens(asked, system_prompt, opening)]
        order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], prompts[i].id))
        size = max(self.batch_size // answers, 1)
        return [[prompts[i] for i in order[at : at + size]] for at in range(0, len(order), size)]

    def generate(
        self,
        batches: Sequence[Sequence[Prompt]],
        max_new_tokens: int,
        system_prompt: str | None = None,
        capture: Record | None = None,
        sampling: Sampling | None = None,
        opening: str = "",
    ) -> Iterator[BatchResult]:
        """Answer batch after batch, greedily unless asked to sample.

        Args:
            batches: from `batches`.
            max_new_tokens: the longest answer; reasoning before it has a budget of its own (`chat.thinking`).
            system_prompt: given to the model first.
            capture: how much of the routing to keep: counts, also single tokens, also router logits.
            sampling: draw answers, as many per prompt as it says.
            opening: the beginning of every answer, given to the model; the responses are what follows it.

        Raises:
            HarnessError: out of memory (names the setting to lower), or routing that cannot be trusted.
        """
        how = Decoding(max_new_tokens, capture, sampling, self.chat.thinking.tokens, opening)
        for batch in batches:
            tokens = self.chat.tokens([prompt.asked for prompt in batch], system_prompt, opening)
            yield self.answer(batch, tokens, how)

    def answer(self, batch: Sequence[Prompt], tokens: list[list[int]], how: Decoding) -> BatchResult:
        """Answer one batch, whose rendered prompts are these tokens."""
        raise NotImplementedError

    def serving(self, made: Prepared, scratch: Path) -> AbstractContextManager[None]:
        """Answer as a variant inside the block; afterwards as base again.

        Args:
            made: the variant, with what was made for it.
            scratch: a folder that the engine may write and must remove, such as for a checkpoint of the variant.

        Raises:
            BadInputError: the engine cannot serve the variant, or serves other weights than the variant's.
        """
        ...

    def lm_eval_model(self, batch_size: int, description: str) -> Any:
        """Return an `lm_eval.api.model.LM` that answers as the engine does at the moment.

        Args:
            batch_size: requests in one forward pass.
            description: of its progress bar.
        """
        ...

    def record(self) -> dict[str, Any] | None:
        """Return what is served at the moment, for served.json; None where run.json already records it."""
        return None

    def close(self) -> None:
        """Free what the engine holds; the next question takes it again."""
        return None


def chat_of(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """Return the chat template as a run asks it.

    Raises:
        BadInputError: the template cannot think, or leave it, as the settings say.
    """
    how = config.generation
    return ChatTemplate.of_run(tokenizer, how.chat_template_kwargs, how.thinking, how.reasoning_tokens)


class EngineKind(Protocol):
    """What a run needs to know about an engine before it opens it.

    Attributes:
        name: as `--engine` and the registry have it.
    """

    name: str

    def why_unusable(self, config: RunConfig, device: str) -> str | None:
        """Return why the engine cannot be used on this machine, with the remedy, or None.

        Args:
            config: the run's settings.
            device: the type of the run's device, cpu or cuda.
        """
        return None

    def is_best_on(self, device: str) -> bool:
        """Say whether `auto` takes this engine on a device of this type."""
        return False

    def check_model(self, ref: ModelRef, outline: MoEModel) -> None:
        """Refuse a model that the engine cannot serve; no weights are read.

        Raises:
            BadInputError: says why.
        """
        return None

    def why_not_followed(self, setting: str) -> str | None:
        """Return why the engine cannot follow a generation setting of the checkpoint, or None."""
        return None

    def longest_text(self, config: RunConfig, outline: MoEModel) -> int | None:
        """Return how many tokens a prompt and its answer may have together; None where the model does not say."""
        longest = getattr(outline.model.config.get_text_config(), "max_position_embeddings", None)
        return longest if isinstance(longest, int) else None

    def why_not_servable(self, made: Prepared) -> str | None:
        """Return why the engine cannot answer as a variant, or None; nothing has been made of the variant yet."""
        return None

    def why_answers_change_with_capture(self, config: RunConfig) -> str | None:
        """Return why answers may differ while routing is captured, or None where they are the same."""
        return None

    def why_not_seeded(self) -> str | None:
        """Return why sampled answers are not drawn from a seed of their own each, or None where they are."""
        return None

    def identity(self, config: RunConfig) -> Mapping[str, Any]:
        """Return the settings and versions of the engine that can change an answer."""
        return {}

    def device_of_model(self, config: RunConfig) -> str:
        """Return the device for the model in this process, which serves training and analysis under any engine."""
        return config.device

    def open(self, config: RunConfig, model: ModelInMemory, prompts: Sequence[Prompt]) -> Engine:
        """Return the engine; slow work waits for the first question.

        Args:
            config: the run's settings.
            model: the run's model: where it is on disk, and in memory as soon as `loaded` is asked for.
            prompts: the test prompts, some of which may serve to check the engine.
        """
        ...


ENGINES: Registry[EngineKind] = Registry("engine", "harness.engines", without("name", "why_unusable", "open"))
ENGINES.add("transformers", "harness.engines.transformers:TRANSFORMERS")
ENGINES.add("vllm", "harness.engines.vllm.kind:VLLM")
