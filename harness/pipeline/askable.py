"""Whether prompts can be asked: the chat template shows them, and the model's context holds them with their answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.base.errors import BadInputError
from harness.interventions.base import Prepared
from harness.models.decoding import end_tokens, has_embedding, vocabulary_size

if TYPE_CHECKING:
    from harness.data.conversation import Asked
    from harness.data.prompts import Prompt
    from harness.data.task import Role
    from harness.models.chat import ChatTemplate
    from harness.pipeline.plan import Plan


class _Question(NamedTuple):
    """Prompts of a task that are asked in the same way."""

    task: str
    prompts: Sequence[Prompt]
    system_prompt: str | None
    opening: str
    longest: int


def check_askable(plan: Plan, chat: ChatTemplate, roles: Sequence[Role] = ()) -> None:
    """Refuse prompts that a run would ask and that the model would not read whole.

    Args:
        plan: what the run does.
        chat: how its prompts are rendered.
        roles: which prompts to look at; by default those that the variants need.

    Raises:
        BadInputError: names the tasks, with how many of their prompts the chat template leaves out or do not fit; or a
            token that the template writes and the model does not know.
    """
    _refuse_unknown_tokens(plan, chat)
    longest = plan.engine.longest_text(plan.config, plan.outline)
    dropped: dict[str, set[str]] = {}
    too_long: dict[str, set[str]] = {}
    most = (0, 0)
    questions = list(_questions(plan, roles or _needed(plan)))
    for question in questions:
        system_prompt = question.system_prompt
        if any(chat.drops(asked, system_prompt) for asked in ["hi", *_samples(question.prompts)]):
            dropped.setdefault(question.task, set()).update(
                prompt.id for prompt in question.prompts if chat.drops(prompt.asked, system_prompt)
            )
        if longest is not None:
            lengths = _lengths_beyond(longest - question.longest, question, chat)
            too_long.setdefault(question.task, set()).update(lengths)
            most = max([most, *((length, question.longest) for length in lengths.values())])
    asked = {question.task: {prompt.id for prompt in question.prompts} for question in questions}
    if any(dropped.values()):
        raise BadInputError(
            f"the chat template of '{plan.ref.name}' leaves out prompts, or parts of them: {_counted(dropped, asked)}"
        )
    if any(too_long.values()):
        raise BadInputError(
            f"prompts do not fit the context of '{plan.ref.name}' under engine {plan.engine.name}, {longest} tokens: "
            f"{_counted(too_long, asked)}; the longest has {most[0]} tokens and its answer up to {most[1]}: lower "
            f"--max-new-tokens{' or --reasoning-tokens' if chat.thinking.tokens else ''} or name other tasks"
        )


def _refuse_unknown_tokens(plan: Plan, chat: ChatTemplate) -> None:
    """Refuse a chat template that writes tokens which were added without a row in the model's embedding."""
    config = plan.outline.model.config
    size = vocabulary_size(config)
    unknown = [token for token in chat.tokens(["hi"])[0] if not has_embedding(config, token)]
    if unknown:
        raise BadInputError(
            f"the chat template of '{plan.ref.name}' writes {chat.tokenizer.convert_ids_to_tokens(unknown[0])}, token "
            f"{unknown[0]}, but config.json says vocab_size {size}: the model has no embedding for it"
        )


def spelling_control_tokens(plan: Plan, chat: ChatTemplate) -> dict[str, int]:
    """Return how many prompts of each task spell a control token, which is read as text; tasks without are left out."""
    spelling: dict[str, set[str]] = {}
    for question in _questions(plan, _needed(plan)):
        found = {prompt.id for prompt in question.prompts if chat.markers.found(prompt.text)}
        spelling.setdefault(question.task, set()).update(found)
    return {task: len(ids) for task, ids in spelling.items() if ids}


def unknown_end(plan: Plan, chat: ChatTemplate) -> str | None:
    """Say in one line that the model does not stop where its template ends an answer; None where it does."""
    ends = end_tokens(plan.ref.path, plan.outline.model.config, chat.tokenizer)
    token = chat.turn.unknown_end(ends)
    if token is None:
        return None
    named = ", ".join(map(str, chat.tokenizer.convert_ids_to_tokens(list(ends))))
    return (
        f"the chat template ends an answer with {token}, and the checkpoint's eos_token_id is {named} alone: answers "
        "may run on to the limit; name both in generation_config.json"
    )


def in_words(spelling: Mapping[str, int]) -> str:
    """Write how many prompts spell a control token: `2 of demo_benign`."""
    return ", ".join(f"{count} of {task}" for task, count in spelling.items())


def _needed(plan: Plan) -> list[Role]:
    roles: list[Role] = ["test"]
    return roles + (["identify"] if plan.identifies else []) + (["train"] if plan.trains else [])


def _questions(plan: Plan, roles: Sequence[Role]) -> Iterator[_Question]:
    systems = list(dict.fromkeys(Prepared(variant).system_prompt for variant in plan.variants))
    for role in roles:
        for task, prompts in plan.prompts(role).items():
            for system in systems if role == "test" else [None]:
                yield _Question(task, prompts, system, plan.opening(task), plan.longest_generation(task))


def _samples(prompts: Sequence[Prompt]) -> list[Asked]:
    """Return the longest prompt of each order of turns, one of which shows whether a template leaves anything out."""
    longest: dict[tuple[str, ...], Prompt] = {}
    for prompt in prompts:
        order = tuple(turn.role for turn in prompt.turns)
        if order not in longest or len(prompt.text) > len(longest[order].text):
            longest[order] = prompt
    return [prompt.asked for prompt in longest.values()]


def _lengths_beyond(room: int, question: _Question, chat: ChatTemplate) -> dict[str, int]:
    """Return the lengths of the prompts that have more tokens than there is room for, by id."""
    system, opening = question.system_prompt, question.opening
    frame = len(chat.tokens(["hi"], system, opening)[0])
    # No text has more tokens than bytes, so most prompts need not be tokenised; turns have frames of their own.
    long = [prompt for prompt in question.prompts if prompt.turns or len(prompt.text.encode()) + frame > room]
    tokens = chat.tokens([prompt.asked for prompt in long], system, opening)
    return {prompt.id: len(ids) for prompt, ids in zip(long, tokens, strict=True) if len(ids) > room}


def _counted(found: Mapping[str, set[str]], asked: Mapping[str, set[str]]) -> str:
    return ", ".join(
        f"{len(ids)} of {len(asked[task] | ids)} of {task}" for task, ids in found.items() if ids
    )
