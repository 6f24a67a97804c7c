"""A part of the train split that nothing is trained on: to choose settings by, since the test split stays unseen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.data.duplicates import near_duplicate_groups
from harness.data.splits import pair_keys_of, pair_links

if TYPE_CHECKING:
    from harness.data.prompts import Prompt, PromptSet


def hold_out(
    train: Mapping[str, Sequence[Prompt]], prompt_sets: Sequence[PromptSet], share: float
) -> tuple[dict[str, list[Prompt]], dict[str, list[Prompt]]]:
    """Split train prompts in two; near-duplicates and matched pairs stay on one side, as in `make_splits`.

    A group's side is drawn from a hash of its first id or pair, so a prompt more or less moves no other group.

    Args:
        train: the train prompts by task.
        prompt_sets: the run's tasks.
        share: about how much is held out.

    Returns:
        What is trained on and what is held out, by task, in the order given.
    """
    prompts = [prompt for task in sorted(train) for prompt in train[task]]
    if not prompts:
        return {task: [] for task in train}, {task: [] for task in train}
    pairs = pair_links(pair_keys_of(prompts, prompt_sets))
    labels = near_duplicate_groups([prompt.text for prompt in prompts], pairs).tolist()
    first: dict[int, str] = {}
    for label, prompt in zip(labels, prompts, strict=True):
        name = prompt.pair or prompt.id
        first[label] = min(first.get(label, name), name)
    out = {
        (prompt.task, prompt.id)
        for label, prompt in zip(labels, prompts, strict=True)
        if _draw(first[label]) < share
    }
    return (
        {task: [p for p in rows if (p.task, p.id) not in out] for task, rows in train.items()},
        {task: [p for p in rows if (p.task, p.id) in out] for task, rows in train.items()},
    )


def _draw(name: str) -> float:
    digest = hashlib.sha256(f"held out {name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
