"""The pieces of a run in their order, with what a rough model of the hardware says they take.

The model only has to be right to a factor of a few: a run replaces it by what its own pieces took (base/forecast.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from harness.base.forecast import Piece
from harness.pipeline.estimate import examples_of

if TYPE_CHECKING:
    from harness.data.prompts import Prompt
    from harness.interventions.base import Variant
    from harness.models.moe import MoEModel
    from harness.pipeline.plan import Plan

# Items of a capability task, requests and tokens of an item, where only lm-eval knows them.
_ITEMS, _TOKENS_OF_ITEM = 500, 200
_TOKENS_OF_EXAMPLE = 100
_JUDGED_PER_SECOND = 1000


class _Hardware(NamedTuple):
    """What the hardware takes.

    Attributes:
        call: seconds that a layer takes at least to be called.
        answering: operations per second where an answer is made token by token.
        reading: operations per second where tokens are known and read all at once.
    """

    call: float
    answering: float
    reading: float


# Of two CPU cores and of an H100 with transformers (docs/results/scale-local.md, docs/results/gpu.md).
_CPU, _GPU = _Hardware(1e-3, 25e9, 100e9), _Hardware(6e-4, 50e12, 70e12)


def pieces(plan: Plan, device: str, until: str = "evaluate") -> dict[str, Piece]:
    """Return the pieces of a run by the names of its stages.

    Args:
        plan: what to do.
        device: cpu or cuda.
        until: the last step, as for `pipeline.run`.
    """
    cost = _Cost(plan, _GPU if device == "cuda" else _CPU)
    result: dict[str, Piece] = {}
    if plan.selects or until == "capture":
        for task, prompts in plan.prompts("identify").items():
            result[f"capture {task}"] = cost.generate(task, prompts, "capturing routing")
    if until != "capture" and plan.selects:
        result["expert table"] = Piece("table", 1.0, "selecting experts")
    numbered = {
        variant.name: f"variant {number} of {len(plan.variants)}, {variant.name}"
        for number, variant in enumerate(plan.variants, 1)
    }
    trained = [variant for variant in plan.variants if variant.spec.needs == "training"]
    if until in ("train", "evaluate") and trained:
        if plan.chat.thinking.tokens is not None and until == "evaluate":
            # A model that thinks is evaluated before anything is trained.
            result |= cost.evaluate(plan.variants[0], numbered[plan.variants[0].name])
        for task, prompts in plan.prompts("train", "benign").items():
            result[f"own answers {task}"] = cost.generate(task, prompts, "answering training prompts")
        for variant in trained:
            result[f"train {variant.name}"] = cost.train(f"{numbered[variant.name]}: training")
    if until == "evaluate":
        for variant in plan.variants:
            result |= cost.evaluate(variant, numbered[variant.name])
    return result


class _Cost:
    """What a run's pieces take on some hardware."""

    def __init__(self, plan: Plan, hardware: _Hardware) -> None:
        self.plan = plan
        self.layers = plan.outline.model.config.get_text_config().num_hidden_layers
        operations = 2 * active_parameters(plan.outline)
        self.per_token = operations / hardware.answering
        self.per_token_read = operations / hardware.reading
        self.per_pass = self.layers * hardware.call

    def generate(self, task: str, prompts: list[Prompt], part: str, answers: int = 1) -> Piece:
        # Half of what an answer may have at most.
        tokens, n = self.plan.longest_generation(task) / 2, len(prompts) * answers
        batches = -(-n // self.plan.config.generation.batch_size)
        return Piece("generate", batches * tokens * self.per_pass + n * tokens * self.per_token, part)

    def train(self, part: str) -> Piece:
        from harness.training.batches import count_steps

        settings = self.plan.config.training
        examples = sum(examples_of(self.plan).values())
        steps = count_steps(examples, settings)
        batch = settings.batch_size * settings.gradient_accumulation_steps
        tokens = steps * min(batch, examples) * _TOKENS_OF_EXAMPLE
        return Piece("train", 3 * (steps * self.per_pass + tokens * self.per_token_read), part)

    def evaluate(self, variant: Variant, part: str) -> dict[str, Piece]:
        return dict(self._evaluate(variant, part))

    def _evaluate(self, variant: Variant, part: str) -> Iterator[tuple[str, Piece]]:
        plan, name = self.plan, variant.name
        asked = plan.test_prompts(variant)
        for task, prompts in asked.items():
            yield f"answer {name}/{task}", self.generate(task, prompts, part, plan.answers)
        if plan.config.capability.tasks and not plan.is_limited(variant):
            settings = plan.config.capability
            items = (settings.limit or _ITEMS) * len(settings.tasks)
            passes = -(-items // settings.batch_size)
            seconds = passes * self.per_pass + items * _TOKENS_OF_ITEM * self.per_token_read
            yield f"capability {name}", Piece("capability", seconds, part)
        for task, prompts in asked.items():
            yield (
                f"judge {name}/{task}",
                Piece("judge", len(prompts) * plan.answers / _JUDGED_PER_SECOND, part),
            )
        if not plan.is_limited(variant):
            rows = plan.config.evaluation.drift_answers
            yield (
                f"drift {name}",
                Piece("drift", self.per_pass + rows * _TOKENS_OF_EXAMPLE * self.per_token, part),
            )
        if variant.spec.needs == "training":
            yield f"prove {name}", Piece("prove", 0.5, part)


def active_parameters(outline: MoEModel) -> int:
    """Return how many parameters a token passes through."""
    idle = outline.n_experts - outline.experts_per_token
    unused = sum(layer.parameters_per_expert * idle for layer in outline.layers)
    return outline.n_parameters - unused
