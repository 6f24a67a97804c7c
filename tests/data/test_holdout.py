"""Held-out train prompts: whole groups, about the share asked for, whatever else there is."""

from __future__ import annotations

import random

import pytest

from harness.data.holdout import hold_out
from harness.data.prompts import Prompt, PromptSet, Resolved
from harness.data.task import TaskSpec


def task(name: str, kind: str, prompts: list[Prompt], **more) -> PromptSet:
    spec = TaskSpec(
        name=name,
        kind=kind,
        description="x",
        source={"package_files": ["x.jsonl"]},
        prompt={"column": "text"},
        licence="x",
        citation="x",
        **more,
    )
    return PromptSet(spec, tuple(prompts), Resolved("package", "x"))


def texts(n: int) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=40)) for _ in range(n)]


@pytest.fixture
def sets() -> tuple[PromptSet, PromptSet]:
    """150 harmful prompts, each with a benign twin of another text; one prompt in ten repeats the one before."""
    lines = texts(300)
    for i in range(1, 150, 10):
        lines[i] = lines[i - 1].upper()
    harmful = [Prompt(f"h{i}", lines[i], "bad", "harmful", pair=f"p{i}") for i in range(150)]
    benign = [Prompt(f"b{i}", lines[150 + i], "good", "benign", pair=f"p{i}") for i in range(150)]
    return task("bad", "harmful", harmful), task(
        "good", "benign", benign, pair_column="pair", pairs_with="bad"
    )


def train(sets):
    return {prompt_set.spec.name: list(prompt_set.prompts) for prompt_set in sets}


def test_every_prompt_is_on_one_side_in_its_order(sets):
    kept, out = hold_out(train(sets), sets, 0.25)
    for name, prompts in train(sets).items():
        assert sorted(kept[name] + out[name], key=prompts.index) == prompts
        assert kept[name] == sorted(kept[name], key=prompts.index)
        assert 0.1 < len(out[name]) / len(prompts) < 0.4


def test_pairs_and_near_duplicates_stay_together(sets):
    _, out = hold_out(train(sets), sets, 0.25)
    held = {p.id for prompts in out.values() for p in prompts}
    assert held
    for i in range(150):
        assert (f"h{i}" in held) == (f"b{i}" in held)
        if i % 10 == 1:
            assert (f"h{i}" in held) == (f"h{i - 1}" in held)


def test_other_prompts_do_not_move_a_group(sets):
    """So a lower limit, or another task beside, holds out the same of what is there."""
    _, out = hold_out(train(sets), sets, 0.25)
    fewer = {name: prompts[:100] for name, prompts in train(sets).items()}
    _, less = hold_out(fewer, sets, 0.25)
    assert less == {name: [p for p in prompts if p in fewer[name]] for name, prompts in out.items()}
    # A pair is drawn by its own name, whichever of its two are there.
    alone = {"bad": train(sets)["bad"]}
    assert hold_out(alone, sets[:1], 0.25)[1] == {"bad": out["bad"]}


def test_a_larger_share_holds_out_more_of_the_same(sets):
    few, many = (hold_out(train(sets), sets, share)[1] for share in (0.1, 0.5))
    for name in few:
        assert set(few[name]) < set(many[name])


def test_nothing_to_hold_out_of():
    assert hold_out({"bad": []}, [], 0.5) == ({"bad": []}, {"bad": []})
