"""What an engine is: prompts in, answers and routing out, the same whichever library runs the model.

An engine is one file: an `Engine`, and an `EngineKind` that says before a run starts whether it can be used. It is
added with `ENGINES.add(name, kind)`, and nothing else has to know its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from harness.base.registry import Registry

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.config import RunConfig
    from harness.data.prompts import Prompt
    from harness.engines.chat import ChatTemplate
    from harness.engines.in_memory import ModelInMemory
    from harness.interventions.base import Prepared
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel
    from harness.routing.counts import Record, RoutingCounts
    from harness.routing.tokens import RoutedTokens


@dataclass(frozen=True, slots=True)
class Response:
    """One answer, as it is kept in responses/TASK.jsonl."""

    id: str
    prompt: str
    response: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    generated_tokens: int

    def row(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


class BatchResult(NamedTuple):
    """The answers of one batch, and its routing where that was asked for."""

    responses: list[Response]
    routing: RoutingCounts | None = None
    tokens: RoutedTokens | None = None


class Sampling(NamedTuple):
    """Several sampled answers a prompt instead of one greedy one.

    Their ids are the prompt's with #1, #2, ... behind it; each counts the routing of the prompt again.
    """

    answers: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0


class Engine(Protocol):
    """Lets a model answer prompts."""

    name: str
    chat: ChatTemplate

    def batches(
        self, prompts: Sequence[Prompt], system_prompt: str | None = None, opening: str = ""
    ) -> list[list[Prompt]]:
        """Share prompts out into batches, always the same ones; a resumed run goes on with the next batch."""
        ...

    def generate(
        self,
        batches: Sequence[Sequence[Prompt]],
        max_new_tokens: int,
        system_prompt: str | None = None,
        capture: Record | None = None,
        sampling: Sampling | None = None,
        opening: str = "",
    ) -> Iterator[BatchResult]:
        """Answer batch after batch, greedily unless told to sample.

        Args:
            batches: from `batches`.
            max_new_tokens: the longest answer.
            system_prompt: told to the model first.
            capture: how much of the routing to keep: counts, also single tokens, also router logits.
            sampling: draw several answers a prompt.
            opening: the beginning of every answer, given to the model; the responses are what follows it.

        Raises:
            HarnessError: out of memory (says which knob to turn), or routing that cannot be trusted.
        """
        ...

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
        """Return what is served at the moment, for served.json; None where the run itself says it already."""
        return None

    def close(self) -> None:
        """Free what the engine holds; the next question takes it again."""
        return None


class EngineKind(Protocol):
    """What a run asks of an engine before it opens it.

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

    def why_not_servable(self, made: Prepared) -> str | None:
        """Return why the engine cannot answer as a variant, of which nothing has been made yet, or None."""
        return None

    def identity(self, config: RunConfig) -> Mapping[str, Any]:
        """Return the settings and versions of the engine that can change an answer."""
        return {}

    def device_of_model(self, config: RunConfig) -> str:
        """Return the device for the model in this process, which trains and is analysed whatever answers."""
        return config.device

    def open(self, config: RunConfig, model: ModelInMemory, prompts: Sequence[Prompt]) -> Engine:
        """Return the engine; what is slow waits for the first question.

        Args:
            config: the run's settings.
            model: the run's model: where it is on disk, and in memory as soon as `loaded` is asked for.
            prompts: the test prompts, some of which may serve to check the engine.
        """
        ...


ENGINES: Registry[EngineKind] = Registry("engine")
ENGINES.add("transformers", "harness.engines.transformers:TRANSFORMERS")
ENGINES.add("vllm", "harness.engines.vllm.kind:VLLM")


def longest_first(
    prompts: Sequence[Prompt],
    chat: ChatTemplate,
    size: int,
    system_prompt: str | None = None,
    opening: str = "",
) -> list[list[Prompt]]:
    """Share prompts out into batches of similar length, the longest first (they need the most memory)."""
    texts = [prompt.text for prompt in prompts]
    lengths = [len(ids) for ids in chat.tokens(texts, system_prompt, opening)]
    order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], prompts[i].id))
    return [[prompts[i] for i in order[at : at + size]] for at in range(0, len(order), size)]


def answer_ids(batch: Sequence[Prompt], sampling: Sampling | None) -> tuple[list[Prompt], list[str]]:
    """Return, for each answer to a batch in order, what was asked and what the answer is called."""
    if sampling is None:
        return list(batch), [prompt.id for prompt in batch]
    numbered = [(prompt, i + 1) for prompt in batch for i in range(sampling.answers)]
    return [prompt for prompt, _ in numbered], [f"{prompt.id}#{i}" for prompt, i in numbered]


def make_responses(
    asked: Sequence[Prompt],
    ids: Sequence[str],
    prompt_tokens: Sequence[int],
    answers: Sequence[Sequence[int]],
    ends: set[int],
    tokenizer: PreTrainedTokenizerBase,
) -> list[Response]:
    """Turn tokens into responses.

    Args:
        asked: the prompt of each answer.
        ids: what each answer is called.
        prompt_tokens: how long each rendered prompt is.
        answers: the tokens of each answer, its end token included.
        ends: tokens that end an answer.
        tokenizer: the model's.
    """
    texts = tokenizer.batch_decode([list(row) for row in answers], skip_special_tokens=True)
    return [
        Response(
            id=name,
            prompt=prompt.text,
            response=text.strip(),
            finish_reason="stop" if row[-1] in ends else "length",
            prompt_tokens=int(n),
            generated_tokens=len(row),
        )
        for prompt, name, text, row, n in zip(asked, ids, texts, answers, prompt_tokens, strict=True)
    ]
