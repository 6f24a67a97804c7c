"""What random draws cost, for the dry run: in minutes once the run folder has a trained variant, in work before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.runs.layout import Layout
from harness.runs.run import read_run

if TYPE_CHECKING:
    from harness.interventions.base import Variant
    from harness.pipeline.plan import Plan

# Stages of a draw that answers the prompts of a claim alone; those in the second row grow with the prompts.
_WHOLE = ("train", "prove")
_BY_PROMPT = ("answer", "judge")


def tokens_of(plan: Plan, variant: Variant) -> int:
    """Return the most tokens that a variant's test answers may have."""
    asked = plan.test_prompts(variant)
    return plan.answers * sum(len(prompts) * plan.longest_generation(task) for task, prompts in asked.items())


def price_of_draws(plan: Plan, output: Path, examples: int) -> dict[str, Any] | None:
    """Return what the random draws of a run take; None where there are none.

    Args:
        plan: what to do.
        output: the run folder, whose earlier stages say how long a variant takes.
        examples: training examples, at most.

    Returns:
        draws, training_steps and generated_tokens_at_most of each, and seconds of all together (None before any
        variant was trained in the folder).
    """
    from harness.training.batches import count_steps

    draws = [variant for variant in plan.variants if variant.spec.is_drawn]
    if not draws:
        return None
    is_trained = draws[0].spec.needs == "training"
    seconds = _seconds_of_one(plan, draws[-1], output)
    return {
        "draws": len(draws),
        "training_steps": count_steps(examples, plan.config.training) if is_trained else 0,
        "generated_tokens_at_most": tokens_of(plan, draws[-1]),
        "seconds": None if seconds is None else round(seconds * len(draws), 1),
    }


def price_in_words(price: dict[str, Any]) -> str:
    """Return the price as a line."""
    draws = f"{price['draws']} random draw{'' if price['draws'] == 1 else 's'}"
    if price["seconds"] is not None:
        minutes = price["seconds"] / 60
        return f"{draws}: about {minutes:.0f} min" if minutes >= 1 else f"{draws}: under a minute"
    return (
        f"{draws}: {price['training_steps']:,} training steps and at most {price['generated_tokens_at_most']:,} "
        "generated tokens each; in minutes once the intervention was answered in this folder"
    )


def _seconds_of_one(plan: Plan, draw: Variant, output: Path) -> float | None:
    """Return how long a draw will take, from the intervention's stages in the folder; None where it has none."""
    own = plan.intervention
    if own.spec.needs != draw.spec.needs or not Layout(output).is_run():
        return None
    seconds: dict[str, float] = {}
    for name, stage in read_run(output).record.stages.items():
        kind, _, subject = name.partition(" ")
        if subject.split("/")[0] == own.name and stage.state == "done":
            seconds[kind] = seconds.get(kind, 0.0) + stage.seconds
    if "answer" not in seconds:
        return None
    if not plan.is_limited(draw):
        return sum(seconds.values())
    part = tokens_of(plan, draw) / tokens_of(plan, own)
    return sum(
        seconds.get(kind, 0.0) * share for kinds, share in ((_WHOLE, 1), (_BY_PROMPT, part)) for kind in kinds
    )
