"""Training examples: chat-templated prompts with the answer that the model should give.

Only answer tokens carry loss, and the output head runs on the positions that predict them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    from harness.models.chat import ChatTemplate


Aim = Literal["refuse", "retain", "continue", "prefer"]
"""The purpose of an example.

refuse: a harmful prompt, then a refusal. retain: a benign prompt, then the model's own earlier answer. continue: a
harmful prompt with the first tokens of the model's own compliant answer, then a refusal. prefer: a harmful prompt with
a refusal and, beside it, the model's own compliant answer.
"""
AIMS: tuple[Aim, ...] = ("refuse", "retain", "continue", "prefer")


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation to learn from.

    Attributes:
        prompt: token ids up to where the answer to learn begins.
        answer: token ids of the answer, its end token included where it has one.
        aim: its purpose.
        rejected: token ids of the answer that `answer` is preferred to.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    aim: Aim
    rejected: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt) + max(len(self.answer), len(self.rejected))

    def sides(self) -> list[Example]:
        """Return the conversation, and after it the one with the rejected answer where there is one."""
        sides = [Example(self.prompt, answer, self.aim) for answer in (self.answer, self.rejected)]
        return sides if self.rejected else sides[:1]


class Batch(NamedTuple):
    """Left-padded examples, the answer tokens to learn, and where each is predicted (one position earlier)."""

    input_ids: torch.Tensor  # [B, T]
    attention_mask: torch.Tensor  # [B, T]
    position_ids: torch.Tensor  # [B, T]
    targets: torch.Tensor  # [A], the answer tokens of all examples
    predictors: torch.Tensor  # [A], their predecessors' places in the flattened [B * T]


def make_examples(
    chat: ChatTemplate,
    prompts: Sequence[str],
    answers: Sequence[str | Sequence[int]],
    finished: Sequence[bool],
    end: int,
    aim: Aim,
    openings: Sequence[str] | None = None,
) -> list[Example]:
    """Tokenise conversations.

    Args:
        chat: renders the prompts.
        prompts: users' messages.
        answers: the answers that the model should give: texts, or token ids that it emitted, taken as they are.
        finished: whether a text is complete; a truncated one gets no end token.
        end: the token that ends an answer.
        aim: the purpose of the examples.
        openings: the beginning of another answer, which precedes each answer without loss.
    """
    if not prompts:  # a tokenizer cannot be given nothing
        return []
    texts = [answer if isinstance(answer, str) else "" for answer in answers]
    if openings is None:
        rendered = chat.tokens(prompts)
        encoded = chat.markers.encode([chat.markers.broken(text) for text in texts])
    else:
        rendered, encoded = _after_openings(chat, prompts, openings, texts)
    examples = []
    for prompt, given, ids, whole in zip(rendered, answers, encoded, finished, strict=True):
        text = [*ids, end] if whole else ids
        answer = text if isinstance(given, str) else given
        if answer:
            examples.append(Example(tuple(prompt), tuple(answer), aim))
    return examples


def _after_openings(
    chat: ChatTemplate, prompts: Sequence[str], openings: Sequence[str], answers: Sequence[str]
) -> tuple[list[list[int]], list[list[int]]]:
    """Tokenise each opening with the answer that continues it, so that the space between is the tokenizer's."""
    rows = [
        (prompt, chat.markers.broken(given), chat.markers.broken(answer))
        for prompt, given, answer in zip(prompts, openings, answers, strict=True)
    ]
    begun = [chat.tokens([prompt], opening=given)[0] for prompt, given, _ in rows]
    whole = [chat.tokens([prompt], opening=f"{given} {answer}")[0] for prompt, given, answer in rows]
    shared = [
        next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
        for short, long in zip(begun, whole, strict=True)
    ]
    split = list(zip(whole, shared, strict=True))
    return [list(ids[:at]) for ids, at in split], [list(ids[at:]) for ids, at in split]


def check_lengths(examples: Sequence[Example], context: int | None) -> None:
    """Refuse examples that the model's context cannot hold.

    Raises:
        BadInputError: says how long the longest is.
    """
    longest = max(len(example) for example in examples)
    if context is not None and longest > context:
        raise BadInputError(f"a training example has {longest} tokens, the model's context holds {context}")


def batch_order(examples: Sequence[Example], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Share examples out into batches, in an order that the seed and epoch fix.

    Examples are shuffled and taken in windows of eight batches. Within a window those of each aim are sorted by
    length and merged by rank, so that a batch holds refusals and benign answers in the window's proportion and of
    similar length among themselves. (Sorting all together would give batches of short refusals only, followed by
    batches of long answers only, and training would swing between the two.) Then the batches are shuffled.
    """
    generator = np.random.default_rng([seed, epoch])
    shuffled = generator.permutation(len(examples)).tolist()
    window = 8 * batch_size
    batches: list[list[int]] = []
    for at in range(0, len(shuffled), window):
        merged = _merged_by_rank(examples, shuffled[at : at + window])
        batches += [merged[i : i + batch_size] for i in range(0, len(merged), batch_size)]
    return [batches[i] for i in generator.permutation(len(batches))]


def _merged_by_rank(examples: Sequence[Example], rows: Sequence[int]) -> list[int]:
    ranked: list[tuple[float, int]] = []
    for aim in sorted({examples[i].aim for i in rows}):
        ordered = sorted((i for i in rows if examples[i].aim == aim), key=lambda i: len(examples[i]))
        ranked += [((rank + 0.5) / len(ordered), i) for rank, i in enumerate(ordered)]
    return [i for _, i in sorted(ranked, key=lambda item: item[0])]


def collate(examples: Sequence[Example], pad: int, device: torch.device) -> Batch:
    """Left-pad examples and say where their answer tokens are predicted."""
    width = max(map(len, examples))
    ids = np.full((len(examples), width), pad, dtype=np.int64)
    mask = np.zeros((len(examples), width), dtype=np.int64)
    answered = np.zeros((len(examples), width), dtype=bool)
    for row, example in enumerate(examples):
        ids[row, width - len(example) :] = (*example.prompt, *example.answer)
        mask[row, width - len(example) :] = 1
        answered[row, width - len(example.answer) :] = True
    positions = np.clip(mask.cumsum(axis=1) - 1, 0, None)
    # Found here, on the host: a mask on the device would make every step wait for its number of tokens.
    predictors = np.flatnonzero(answered) - 1
    arrays = (ids, mask, positions, ids[answered], predictors)
    return Batch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))
