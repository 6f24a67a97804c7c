"""The dry run: what a run would do, and its memory, disk and tokens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.task import ROLES
from harness.models.decoding import in_words
from harness.models.load import outline_model, pick_device
from harness.models.quantized import why_not_trained
from harness.models.thinking import Thinking
from harness.models.weights import weight_files
from harness.pipeline.askable import in_words as counted
from harness.pipeline.measure import capability_with
from harness.pipeline.memory import (
    BYTES_PER_TRAINED,
    activation_bytes,
    available_bytes,
    capability_bytes,
    mapped_bytes,
    model_bytes,
    parameters_of,
    process_bytes,
    why_not_trainable,
)
from harness.pipeline.price import price_in_words, price_of_draws, tokens_of

if TYPE_CHECKING:
    from harness.data.task import Kind, Role
    from harness.interventions.base import Variant
    from harness.pipeline.plan import Plan
    from harness.training.examples import Aim


_MOST_SHOWN = 50


def estimate(plan: Plan, output: Path) -> dict[str, Any]:
    """Return what a run would do and take, without doing it.

    Generated tokens are upper bounds (every answer as long as allowed); memory counts the process and
    the mapped checkpoint, and base's weights with training (its state and a step's activations) or those of the variant
    that has most with lm-eval's logits, whichever is more.
    """
    device = str(pick_device(plan.config.device))
    weights, available = model_bytes(plan.outline, plan.config.dtype), available_bytes(device)
    # The draws of one specification differ in name alone, and there may be very many.
    by_spec = {variant.spec.name: variant for variant in plan.variants}
    sizes = {name: _variant(plan, variant, weights, available) for name, variant in by_spec.items()}
    variants = [{"name": variant.name} | sizes[variant.spec.name] for variant in plan.variants]
    possible = [row for row in variants if not row["skipped"]]
    splits = plan.splits.prompts
    return {
        "model": {
            "name": plan.ref.name,
            "parameters": plan.outline.n_parameters,
            "moe_layers": len(plan.outline.layers),
            "experts_per_layer": plan.outline.n_experts,
            "experts_per_token": plan.outline.experts_per_token,
        },
        "device": device,
        "output": str(output),
        "tasks": {task: {role: len(roles.get(role, [])) for role in ROLES} for task, roles in splits.items()},
        "terms": {spec.name: f"{spec.terms} ({spec.licence})" for spec in plan.specs if spec.terms},
        "spelling_control_tokens": plan.spelling_control_tokens,
        "set_aside": dict(plan.set_aside),
        "followed": dict(plan.followed),
        "thinking": plan.chat.thinking.record() | {"cost": _cost_of_thinking(plan)},
        "capability": plan.config.capability.tasks,
        "variants": variants,
        "training_examples": (examples := examples_of(plan)),
        "draws": price_of_draws(plan, output, sum(examples.values())),
        "test_answers": _test_answers(plan, {row["name"] for row in possible}),
        "sampling": None if plan.sampling is None else plan.sampling._asdict(),
        "generated_tokens_at_most": _tokens(plan, {row["name"] for row in possible}),
        "memory_bytes": process_bytes(device)
        + mapped_bytes((plan.ref.path / name for name in weight_files(plan.ref.path)), device)
        + max(
            weights + _training(plan, possible),
            max(row["memory_bytes"] for row in possible) + _capability(plan, device, possible),
        ),
        "memory_available_bytes": available,
        "disk_bytes": _disk(plan, [row["trained_parameters"] for row in possible]),
        "disk_free_bytes": shutil.disk_usage(_existing(output)).free,
    }


def _cost_of_thinking(plan: Plan) -> float | None:
    """Return how many times the tokens of its answers a run may generate; None where no model thinks."""
    if plan.chat.thinking.tokens is None:
        return None
    asked = plan.prompts("test")
    answers = sum(len(prompts) * plan.max_new_tokens(task) for task, prompts in asked.items())
    whole = sum(len(prompts) * plan.longest_generation(task) for task, prompts in asked.items())
    return round(whole / answers, 1) if answers else None


def _test_answers(plan: Plan, possible: set[str]) -> int:
    asked = (plan.test_prompts(variant) for variant in plan.variants if variant.name in possible)
    return plan.answers * sum(len(prompts) for tasks in asked for prompts in tasks.values())


def _training(plan: Plan, possible: list[dict[str, Any]]) -> int:
    trained = _most_trained(possible)
    if not trained:
        return 0
    settings = plan.config.training
    # As many characters to a token as English has with a small vocabulary.
    lengths = [
        len(prompt.text) // 3 + plan.max_new_tokens(task)
        for kind in ("harmful", "benign")
        for task, prompts in plan.train_prompts(kind).items()
        for prompt in prompts
    ]
    # A batch is as wide as its longest example; recomputed, one layer's activations exist at a time.
    tokens = settings.batch_size * max(lengths, default=0)
    layers = len(plan.outline.layers) if settings.gradient_checkpointing else 1
    return trained * BYTES_PER_TRAINED + activation_bytes(plan.outline, plan.config.dtype, tokens) // layers


def _capability(plan: Plan, device: str, possible: list[dict[str, Any]]) -> int:
    from harness.engines.unanswered import Unanswered

    # vLLM has its share of memory, and keeps to it.
    if plan.engine.name != "transformers" or not plan.config.capability.tasks:
        return 0
    unanswered = Unanswered(plan.outline.model, plan.chat)
    capability_with(unanswered, plan.config)
    passes, dtype = unanswered.passes, plan.config.dtype
    return capability_bytes(plan.outline, dtype, device, passes, _most_trained(possible))


def _most_trained(possible: list[dict[str, Any]]) -> int:
    return max((row["trained_parameters"] for row in possible), default=0)


def examples_of(plan: Plan) -> dict[str, int]:
    """Return how many examples of each aim there are at most: answers that do not serve are left out later."""
    harmful, benign = (sum(map(len, plan.train_prompts(kind).values())) for kind in ("harmful", "benign"))
    retained = min(benign, round(plan.config.training.retain_per_refusal * harmful))
    return {aim: retained if aim == "retain" else harmful for aim in _aims(plan)}


def _aims(plan: Plan) -> list[Aim]:
    from harness.training.objectives import aims_of

    return aims_of(plan.config.training.objectives) if plan.trains else []


def _variant(plan: Plan, variant: Variant, weights: int, available: int) -> dict[str, Any]:
    experts = plan.outline.all_experts()
    if variant.spec.uses_selection:
        experts = experts[: plan.selection_of(variant).at_most or len(experts)]
    adapter = variant.spec.adapter
    rank = plan.config.training.lora_rank if adapter is None else adapter.rank
    trained = parameters_of(plan.outline, experts, rank) if variant.spec.needs == "training" else 0
    return {
        "intervention": variant.spec.intervention,
        "trained_parameters": trained,
        "memory_bytes": _weights(plan, variant, weights),
        "skipped": (why_not_trained(plan.ref.path) or why_not_trainable(trained, weights, available))
        if trained
        else None,
    }


def _weights(plan: Plan, variant: Variant, base: int) -> int:
    """Return the size of the weights in memory while a variant answers; another model is never beside base."""
    if not variant.spec.is_other_model:
        return base + variant.spec.bytes_beside_base()
    other = outline_model(variant.spec.other_model(plan.ref), may_be_dense=True)
    return model_bytes(other, plan.config.dtype)


def _tokens(plan: Plan, possible: set[str]) -> int:
    def of(role: Role, kind: Kind | None = None) -> int:
        prompts = plan.prompts(role, kind)
        return sum(len(prompts[task]) * plan.longest_generation(task) for task in prompts)

    aims = _aims(plan)
    once = of("identify") if plan.selects else 0
    once += of("train", "benign") if "retain" in aims else 0
    once += of("train", "harmful") if {"continue", "prefer"} & set(aims) else 0
    return once + sum(tokens_of(plan, variant) for variant in plan.variants if variant.name in possible)


def _disk(plan: Plan, trained: list[int]) -> int:
    """Deltas, and the merged checkpoints: one at a time, or all of them with save_model."""
    deltas = [parameters for parameters in trained if parameters]
    checkpoints = len(deltas) if plan.config.save_model else min(1, len(deltas))
    return 2 * sum(deltas) + checkpoints * model_bytes(plan.outline, "auto")


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)


def print_estimate(estimates: dict[str, Any]) -> None:
    """Print a dry run for people."""
    from rich.console import Console
    from rich.markup import escape

    from harness.report.listing import listing, width_of_terminal

    console = Console(highlight=False)
    model = estimates["model"]
    console.print(
        f"[bold]{escape(model['name'])}[/]: {model['parameters'] / 1e6:,.1f} million parameters, "
        f"{model['moe_layers']} MoE layers of {model['experts_per_layer']} experts, "
        f"{model['experts_per_token']} per token, on {estimates['device']}"
    )

    def show(title: str, rows: list[dict[str, object]]) -> None:
        console.print(f"\n[bold]{title}[/]")
        for line in listing(rows, width) if rows else []:
            console.print(line, markup=False, soft_wrap=True)

    width = width_of_terminal()
    show("prompts", [{"task": task, **sizes} for task, sizes in estimates["tasks"].items()])
    show(
        "variants",
        [
            {
                "variant": row["name"],
                "how": row["intervention"],
                "trained parameters": f"{row['trained_parameters']:,}" if row["trained_parameters"] else "-",
                "note": f"skipped: {row['skipped']}" if row["skipped"] else "",
            }
            for row in estimates["variants"][:_MOST_SHOWN]
        ],
    )
    if (more := len(estimates["variants"]) - _MOST_SHOWN) > 0:
        console.print(f"and {more:,} more variants")
    examples = ", ".join(f"{number} to {aim}" for aim, number in estimates["training_examples"].items())
    said = {
        "terms of the data": "; ".join(f"{task}: {terms}" for task, terms in estimates["terms"].items()),
        "generation settings set aside": in_words(estimates["set_aside"]),
        "generation settings followed": in_words(estimates["followed"]),
        "prompts that spell a control token, read as text": counted(estimates["spelling_control_tokens"]),
        "thinking": _thinking(estimates["thinking"]),
    }
    sizes = {name: size(value) for name, value in estimates.items() if name.endswith("_bytes")}
    console.print()
    console.print(
        *(escape(f"{what}: {text}") for what, text in said.items() if text),
        f"capability: {escape(', '.join(estimates['capability']) or 'none')}",
        f"training examples: at most {examples or 'none'}",
        f"answers to test prompts: {estimates['test_answers']:,}{_sampled(estimates['sampling'])}",
        f"generated tokens: at most {estimates['generated_tokens_at_most']:,}",
        *([price_in_words(estimates["draws"])] if estimates["draws"] else []),
        f"memory: about {sizes['memory_bytes']} of {sizes['memory_available_bytes']}",
        f"disk: about {sizes['disk_bytes']} of {sizes['disk_free_bytes']} free",
        f"output: {escape(estimates['output'])}",
        sep="\n",
    )


def _thinking(record: dict[str, Any]) -> str:
    """Return what is asked of a model that may think, with a warning of what that costs."""
    said = Thinking(record["state"], record["arguments"], record["reasoning_tokens"]).in_words()
    if said is None or record["cost"] is None:
        return said or ""
    return f"{said}; warning: up to {record['cost']:g} times the tokens of the answers alone"


def _sampled(sampling: dict[str, Any] | None) -> str:
    if sampling is None:
        return ""
    return ", {answers} sampled per prompt (temperature {temperature:g}, top-p {top_p:g})".format(**sampling)


def size(n: int) -> str:
    """Return a number of bytes for people."""
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"
