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
    from harness.data.conversation import Asked
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
    prompts: Sequence[Asked],
    answers: Sequence[str | Sequence[int]],
    finished: Sequence[bool],
    end: int,
    aim: Aim,
    openings: Sequence[str] | None = None,
    thoughts: Sequence[str] | None = None,
) -> list[Example]:
    """Tokenise conversations: what is learnt is what the chat template writes behind the generation prompt.

    Args:
        chat: renders the conversations.
        prompts: users' messages, or conversations that end with one.
        answers: the answers that the model should give: texts, or token ids that it emitted, taken as they are.
        finished: whether a text is complete; a truncated one gets no end token.
        end: the token that ends an answer.
        aim: the purpose of the examples.
        openings: the beginning of another answer, which precedes each answer without loss.
        thoughts: precede each answer, and are learnt with it.
    """
    if not prompts:  # a tokenizer cannot be given nothing
        return []
    turn, broken, tail = chat.turn, chat.markers.broken, chat.turn.tail(end)
    examples = []
    for place, (prompt, ids, given, whole) in enumerate(
        zip(prompts, chat.tokens(prompts), answers, finished, strict=True)
    ):
        if not isinstance(given, str):
            example = Example(tuple(ids), tuple(given), aim)
        elif given or whole:
            before = turn.lead if thoughts is None else turn.lead_with(broken(thoughts[place]))
            if openings is not None:
                before = f"{turn.lead}{broken(openings[place])} "
                (ids,) = chat.tokens([prompt], opening=openings[place])
            written = f"{before}{broken(given)}{(tail or '') if whole else ''}"
            start, answer = _told_apart(chat, ids, prompt, written, openings is not None)
            example = Example(start, (*answer, end) if whole and tail is None else answer, aim)
        else:
            continue
        if example.answer:
            examples.append(example)
    return examples


def _told_apart(
    chat: ChatTemplate, asked: Sequence[int], prompt: Asked, written: str, opened: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that are given and those that are learnt.

    Args:
        chat: renders the prompt.
        asked: the prompt's tokens, as far as they are given.
        prompt: the user's message, or the conversation.
        written: what stands behind the generation prompt.
        opened: `asked` ends with the beginning of an answer; words that the tokenizer joins over its end are learnt.
    """
    ids = chat.continued(prompt, written)
    shared = next((i for i, (a, b) in enumerate(zip(asked, ids, strict=False)) if a != b), len(asked))
    if shared == len(asked) or opened:
        return tuple(ids[:shared]), tuple(ids[shared:])
    # The tokenizer joins the end of the generation prompt to what follows; a model that generates never sees that.
    return tuple(asked), tuple(chat.markers.continuation(written))


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
