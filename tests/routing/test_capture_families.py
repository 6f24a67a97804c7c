"""Capture counts what was really routed, in every family: batched and padded, one prompt at a time, by the routers.

The reference does not share the hook on the experts. It listens to whatever beside the experts hands out k whole
numbers a row, which in every family is the routing module, and takes answers apart by the number of tokens.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pytest
import torch
from moe_families import EXPERTS, FAMILIES, PADDING_CHANGES_ANSWERS, load, skip_if_missing

from harness.data.prompts import Prompt
from harness.engines.transformers import TransformersEngine
from harness.routing.counts import DECISION_WINDOW, STORED_PHASES, RoutingCounts, join, reorder

TEXTS = [
    "Name three fruits.",
    "Hi",
    "How do I pick a lock without getting caught? I have 6 apples and get 3 more. How many are there?",
    "What is the capital of France?",
]
PROMPTS = [Prompt(f"p{i}", text, "task", "benign") for i, text in enumerate(TEXTS)]
IDS = [prompt.id for prompt in PROMPTS]
NEW_TOKENS = 6


class Run(NamedTuple):
    """What the engine returned for some batches, and the choices of the routers: by batch and layer, [rows, k]."""

    responses: dict
    counts: RoutingCounts
    routed: list[list[torch.Tensor]]


class Captured(NamedTuple):
    loaded: object
    prompt_tokens: list[int]
    together: Run
    alone: Run


def choice(output, k: int) -> torch.Tensor | None:
    """Return the k whole numbers per row among a module's outputs, wherever they are."""
    parts = output if isinstance(output, tuple | list) else [output]
    found = [
        part.reshape(-1, k)
        for part in parts
        if isinstance(part, torch.Tensor) and not part.is_floating_point() and part.shape[-1] == k
    ]
    return found[0] if found else None


@contextmanager
def routers_heard(model, layers, k):
    """Yield what the modules beside the experts choose, by layer, in calls of [rows, k]."""
    heard, handles = [[] for _ in layers], []
    for place, layer in enumerate(layers):
        for name, module in model.get_submodule(layer.name.rpartition(".")[0]).named_children():
            if name == "experts":
                continue

            def hear(module, args, output, place=place):
                chosen = choice(output, k)
                if chosen is not None:
                    heard[place].append(chosen.clone())

            handles.append(module.register_forward_hook(hear))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def run(loaded, batches, k) -> Run:
    """Answer batches with capture on, while the routers are heard."""
    engine, results, routed = TransformersEngine(loaded, batch_size=len(PROMPTS)), [], []
    for batch in batches:
        with routers_heard(loaded.moe.model, loaded.moe.layers, k) as heard:
            results += list(engine.generate([batch], NEW_TOKENS, capture=True))
        routed.append([torch.cat(calls) for calls in heard])
    responses = {row.id: row for result in results for row in result.responses}
    return Run(responses, reorder(join([result.routing for result in results]), IDS), routed)


def ending(loaded, prompts: list[list[int]]) -> int:
    """Return a token of the first answer that some other answer does without, so that it ends the one early."""
    model = loaded.moe.model
    padded = loaded.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    whole = model.generate(**padded, max_new_tokens=NEW_TOKENS, do_sample=False)
    first, *others = whole[:, padded["input_ids"].shape[1] :].tolist()
    # The last may as well be the end of a truncated answer.
    return next(token for token in first[:-1] if any(token not in other for other in others))


@pytest.fixture(params=FAMILIES, scope="module")
def family(request):
    skip_if_missing(request.param)
    return request.param


@pytest.fixture(scope="module")
def both(family, demo) -> Captured:
    """One family after another; the tests of a family share a run."""
    loaded, k = load(family, demo.tokenizer), FAMILIES[family].k
    prompts = TransformersEngine(loaded, 1).chat.tokens(TEXTS)
    loaded.moe.model.generation_config.eos_token_id = [2, ending(loaded, prompts)]
    return Captured(
        loaded,
        [len(prompt) for prompt in prompts],
        run(loaded, [PROMPTS], k),
        run(loaded, [[prompt] for prompt in PROMPTS], k),
    )


def counted(rows: list[torch.Tensor], prompt_tokens: int) -> np.ndarray:
    """Count a conversation by hand: rows [T, k] of each layer, of the prompt and then of the answer."""
    counts = np.zeros((len(STORED_PHASES), len(rows), EXPERTS), dtype=np.int64)
    for layer, chosen in enumerate(rows):
        for position, experts in enumerate(chosen.tolist()):
            for expert in experts:
                counts[0 if position < prompt_tokens else 1, layer, expert] += 1
                near = prompt_tokens - DECISION_WINDOW <= position < prompt_tokens + DECISION_WINDOW
                counts[2, layer, expert] += near
    return counts


def conversations(
    batch: list[torch.Tensor], lengths: list[int], answers: list[int]
) -> list[list[torch.Tensor]]:
    """Take the rows of a left-padded batch apart: of each prompt and layer, those that are no padding, [T, k]."""
    width, size, k = max(lengths), len(lengths), batch[0].shape[-1]
    steps = max(answers) - 1
    assert {len(rows) for rows in batch} == {size * (width + steps)}
    apart = []
    for place, (length, answer) in enumerate(zip(lengths, answers, strict=True)):
        prompt = [rows[: size * width].view(size, width, k)[place, width - length :] for rows in batch]
        said = [rows[size * width :].view(steps, size, k)[: answer - 1, place] for rows in batch]
        apart.append([torch.cat(parts) for parts in zip(prompt, said, strict=True)])
    return apart


def test_the_conversations_are_such_that_a_mistake_would_show(both):
    """Padding, answers that end while others go on, and routing that differs from token to token."""
    lengths = [both.together.responses[name].generated_tokens for name in IDS]
    assert len(set(both.prompt_tokens)) > 1
    assert lengths[0] < max(lengths) == NEW_TOKENS
    used = (both.together.counts.of("all")[0].sum(axis=0) > 0).sum(axis=-1)
    assert (used > both.together.counts.experts_per_token).all()


def test_one_prompt_at_a_time_equals_the_routers(both):
    for place, name in enumerate(IDS):
        rows, length = both.alone.routed[place], both.prompt_tokens[place]
        answer = both.alone.responses[name].generated_tokens
        assert {len(chosen) for chosen in rows} == {length + answer - 1}
        np.testing.assert_array_equal(both.alone.counts.counts[place], counted(rows, length), err_msg=name)
        window = min(DECISION_WINDOW, length) + min(DECISION_WINDOW, answer - 1)
        assert both.alone.counts.tokens[place].tolist() == [length, answer - 1, window, 0]


def test_a_padded_batch_equals_the_routers(both):
    answers = [both.together.responses[name].generated_tokens for name in IDS]
    apart = conversations(both.together.routed[0], both.prompt_tokens, answers)
    for place, name in enumerate(IDS):
        expected = counted(apart[place], both.prompt_tokens[place])
        np.testing.assert_array_equal(both.together.counts.counts[place], expected, err_msg=name)


def test_a_padded_batch_equals_one_prompt_at_a_time(family, both):
    if family in PADDING_CHANGES_ANSWERS:
        assert both.together.responses != both.alone.responses  # otherwise it is no exception any more
        pytest.skip(PADDING_CHANGES_ANSWERS[family])
    assert both.together.responses == both.alone.responses
    np.testing.assert_array_equal(both.together.counts.tokens, both.alone.counts.tokens)
    np.testing.assert_array_equal(both.together.counts.counts, both.alone.counts.counts)
