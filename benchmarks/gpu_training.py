"""Part `training` of benchmarks/gpu.py: steps of the bank beside the frozen floor, and the device's own ceilings."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from expert_training import Stepper, peak_bytes, random_batch, state_bytes
from gpu_part import Part, alternated, attempt, compared, free_memory, timed

if TYPE_CHECKING:
    from harness.models.load import LoadedModel
    from harness.training.examples import Batch

FLOOR = "frozen"


class Steps(Protocol):
    """A way of training, ready to take steps; returns a step's seconds."""

    loaded: LoadedModel
    optimizer: torch.optim.Optimizer

    def __call__(self, batch: Batch) -> float:
        """Take a step."""
        ...


def training(
    loaded: LoadedModel, part: Part, sizes: Mapping[str, float], n_experts: int, seconds: float
) -> None:
    """Measure all variants at all sizes.

    Args:
        loaded: the model.
        part: where the rows go.
        sizes: seconds for the rounds of each size, the most important first.
        n_experts: how many are trained.
        seconds: what compiling and the first steps of the compiled variant may take in all.
    """
    part.put(**ceilings(loaded.device))
    free_memory(loaded.device)
    part.put(trained_experts=n_experts, weights_gib=weight_bytes(loaded) / 2**30)
    bank = Stepper(loaded, "bank", n_experts, True, False)
    compiled = copy.copy(bank)  # the same bank and optimizer
    compiled.compiled = True
    # A CPU would take a minute to compile for what is no measurement anyway.
    compiled.backend = "inductor" if loaded.device.type == "cuda" else "aot_eager"
    steppers: dict[str, Any] = {
        FLOOR: Stepper(loaded, FLOOR, 0, True, False),
        "bank": bank,
        "bank, compiled": compiled,
        "lora": Stepper(loaded, "lora", n_experts, True, False),
    }
    compiling = per_token = 0.0
    # Every length of batch may compile once more; at the limit torch would go on uncompiled without a word.
    with torch._dynamo.config.patch(recompile_limit=64):
        for size, budget in sizes.items():
            ways = {
                name: way for name, way in steppers.items() if not way_compiled(way) or compiling < seconds
            }
            # A step before the rounds and three rounds at the least.
            tokens = math.prod(int(side) for side in size.split("x"))
            if part.left < max(5.0, 4.2 * per_token * tokens):
                part.row(size=size, variant="all", note="no time left")
                continue
            rows = measure(part, loaded, size, ways, FLOOR, min(budget, part.left))
            per_token = sum(row.get("seconds", 0.0) for row in rows.values()) / tokens
            compiling += rows.get("bank, compiled", {}).get("first_step_seconds", 0.0)
            for name in [name for name, row in rows.items() if "failed" in row.get("note", "")]:
                steppers.pop(name)
    part.put(first_compiled_steps_seconds=compiling)


def way_compiled(stepper: Any) -> bool:
    """Say whether a way of training runs compiled."""
    return bool(getattr(stepper, "compiled", False))


def weight_bytes(loaded: LoadedModel) -> int:
    """Return the size of the model's weights."""
    return sum(p.numel() * p.element_size() for p in loaded.moe.model.parameters())


def measure(
    part: Part,
    loaded: LoadedModel,
    size: str,
    ways: Mapping[str, Any],
    baseline: str,
    seconds: float,
    **cells: Any,
) -> dict[str, dict[str, Any]]:
    """Fill a row for each way of training at one size; all alternate in the same rounds."""
    n, tokens = (int(side) for side in size.split("x"))
    weights = weight_bytes(loaded)
    batch = random_batch(loaded, n, tokens)
    free_memory(loaded.device)
    rows: dict[str, dict[str, Any]] = {}
    for name in ways:
        rows[name] = part.row(size=size, variant=name, baseline=baseline, checkpointing=True, **cells)
    fitting: dict[str, Any] = {}
    for name, way in ways.items():
        others = {id(other.optimizer): other for other in ways.values() if hasattr(other, "optimizer")}
        others.pop(id(getattr(way, "optimizer", None)), None)

        def begin(way: Any = way, name: str = name, others: Any = others) -> bool:
            first(way, rows[name], batch)
            peak = rows[name].pop("peak_bytes", None) or peak_bytes(way, batch, weights)
            if loaded.device.type == "cuda":
                peak -= sum(state_bytes(other) for other in others.values())
            rows[name] |= {"peak_gib": peak / 2**30, "peak_over_weights": peak / weights}
            return True

        if attempt(part, f"{name} at {size}", rows[name], begin):
            fitting[name] = way
        drop_gradients(way)
        free_memory(loaded.device)
        part.write()

    def note(taken: dict[str, list[float]]) -> None:
        for name, own in taken.items():
            if baseline in taken:
                rows[name] |= compared(own, taken[baseline])
            else:
                rows[name] |= {"seconds": float(np.median(own)), "pairs": len(own)}
            rows[name]["tokens_per_second"] = n * tokens / rows[name]["seconds"]
        part.write()

    if fitting:
        rounds = {name: lambda way=way: way(batch) for name, way in fitting.items()}
        # What goes wrong this late is told once for all.
        attempt(
            part,
            f"rounds at {size}",
            rows[next(iter(fitting))],
            lambda: alternated(rounds, seconds, after=note),
        )
    per_token = flops_per_token(loaded, tokens)
    for row in rows.values():
        row["gflop_per_token"] = per_token / 1e9
        if "tflops" in part.result:
            row["tokens_per_second_at_ceiling"] = part.result["tflops"] * 1e12 / per_token
    part.write()
    return rows


def first(way: Any, row: dict[str, Any], batch: Batch) -> None:
    """Take the steps that are slower than others: what compiles, and makes the optimizer's state.

    Where neither is left to do, as at the second size, the one step's peak is good already.
    """
    device = way.loaded.device
    ready = not way_compiled(way) and (not hasattr(way, "optimizer") or len(way.optimizer.state) > 0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    way(batch)
    row["first_step_seconds"] = time.perf_counter() - began
    row["trained"] = trained_parameters(way)
    if ready and device.type == "cuda":
        row["peak_bytes"] = torch.cuda.max_memory_allocated()


def trained_parameters(way: Any) -> int:
    """Return how many numbers a way of training trains."""
    return sum(p.numel() for p in way.optimizer.param_groups[0]["params"]) if hasattr(way, "optimizer") else 0


def drop_gradients(way: Any) -> None:
    """Let go of gradients, which a step that ran out of memory leaves behind."""
    if hasattr(way, "optimizer"):
        way.optimizer.zero_grad(set_to_none=True)


def flops_per_token(loaded: LoadedModel, length: int) -> float:
    """Return the least that a training step with activation checkpointing computes for a token.

    Forward twice and the gradient of activations, 2 FLOPs per weight each; the output head on the quarter of the tokens
    that are answers, forward and back; causal attention over half the length, whose gradient costs twice its forward.
    """
    config = loaded.moe.model.config
    head = config.hidden_size * config.vocab_size
    attention = (
        config.hidden_size * config.head_dim * 2 * (config.num_attention_heads + config.num_key_value_heads)
    )
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    layer = attention + config.num_experts_per_tok * expert + config.hidden_size * config.num_experts
    over_context = 2 * length * config.num_attention_heads * config.head_dim
    return config.num_hidden_layers * (6 * layer + 4 * over_context) + head


def ceilings(device: torch.device) -> dict[str, float]:
    """Measure what the device reaches at most: a large bfloat16 product of random numbers, and a large copy."""
    large = device.type == "cuda"
    n, size, repeats = (8192, 2**31, 20) if large else (256, 2**20, 2)
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 255, (size,), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)

    def several(work: Any) -> float:
        timed(device, lambda: [work() for _ in range(3)])
        return (
            float(np.median([timed(device, lambda: [work() for _ in range(repeats)]) for _ in range(5)]))
            / repeats
        )

    found = {
        "tflops": 2 * n**3 / several(lambda: torch.mm(a, b)) / 1e12,
        "copy_tb_per_second": 2 * size / several(lambda: target.copy_(source)) / 1e12,
    }
    return found
