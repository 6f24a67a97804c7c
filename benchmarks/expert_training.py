r"""What training selected experts costs beside running the frozen model: memory, seconds a step, tokens a second.

    python benchmarks/expert_training.py                                         # the demo model, on a CPU
    python benchmarks/expert_training.py --shape qwen3-30b --device cuda --experts 50 --compile \
        --sizes 4x512,16x512,32x512                                              # random weights, a GPU with 80 GB

Each variant alternates with the frozen floor in one process, and its ratio is the median over the pairs with a
distribution-free 95 % interval. The floor runs transformers' own experts forward and backward, with gradients down to
the embeddings' output and nothing to train; it has the variant's activation checkpointing and never torch.compile.

    frozen  the floor itself     bank   the selected experts, all their values     lora  factors of rank 8
    upper   as many experts, all from the upper half of the layers                 all   every expert of the model

A quarter of the tokens are answers. Peak memory is that of one more step: on a GPU the allocator's, on a CPU the sum
of living tensors, which does not see what is used inside an operation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from capture import interval, qwen3_30b
from compiled import compiled_parts
from living import Living
from torch.utils._pytree import tree_leaves

from harness.models.load import LoadedModel, load_model, quiet_transformers, resolve_model
from harness.models.moe import Expert, MoEModel
from harness.pipeline.memory import available_bytes, why_not_trainable
from harness.training.bank import ExpertBank
from harness.training.checkpointing import checkpointed_from
from harness.training.examples import Batch, Example, collate
from harness.training.loop import answer_loss
from harness.training.lora import Lora

VARIANTS = ("frozen", "bank", "lora", "upper", "all")


@dataclass
class Row:
    """One line of the table."""

    size: str
    variant: str
    checkpointing: bool
    compile: bool
    trained: int = 0
    peak_gib: float | None = None
    over_weights: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


def random_batch(loaded: LoadedModel, rows: int, tokens: int) -> Batch:
    """Return a batch of random tokens, a quarter of them answers."""
    ids = np.random.default_rng(0).integers(10, loaded.moe.model.config.vocab_size, (rows, tokens)).tolist()
    cut = tokens - tokens // 4
    return collate([Example(tuple(row[:cut]), tuple(row[cut:]), "refuse") for row in ids], 0, loaded.device)


def choose(moe: MoEModel, variant: str, n: int) -> list[Expert]:
    """Return random experts, of all layers or of the upper half, or all there are."""
    experts = moe.all_experts()
    if variant == "all":
        return experts
    if variant == "upper":
        experts = experts[len(experts) // 2 :]
    chosen = np.random.default_rng(0).choice(len(experts), min(n, len(experts)), replace=False)
    return [experts[i] for i in sorted(chosen)]


class Stepper:
    """One variant, ready to take steps on one batch."""

    def __init__(self, loaded: LoadedModel, variant: str, n: int, checkpointing: bool, compiled: bool):
        self.loaded, self.checkpointing, self.compiled = loaded, checkpointing, compiled
        self.backend = "inductor"
        self.bank: ExpertBank | None = None
        self.first = loaded.moe.layers[0].index
        if variant != "frozen":
            lora = Lora(rank=8, alpha=16.0) if variant == "lora" else None
            self.bank = ExpertBank(loaded.moe, choose(loaded.moe, variant, n), lora=lora)
            self.first = min(self.bank.layers)
            self.optimizer = torch.optim.AdamW(self.bank.parameters(), lr=1e-5)

    def __call__(self, batch: Batch) -> float:
        """Take a step and return its seconds."""
        model = self.loaded.moe.model
        with ExitStack() as stack:
            if self.compiled:
                stack.enter_context(compiled_parts(self.loaded.moe, self.backend))
            if self.checkpointing:
                stack.enter_context(checkpointed_from(self.loaded.moe, self.first))
            stack.enter_context(self.bank.installed() if self.bank else gradients_to_embeddings(model))
            synchronize(self.loaded.device)
            started = time.perf_counter()
            (answer_loss(model, batch) / len(batch.targets)).backward()
            if self.bank:
                torch.nn.utils.clip_grad_norm_(self.bank.parameters(), 1.0)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
            synchronize(self.loaded.device)
            return time.perf_counter() - started


@contextmanager
def gradients_to_embeddings(model: Any) -> Iterator[None]:
    """Let the embeddings' output want a gradient, so that backward passes through all frozen layers."""
    hook = model.get_input_embeddings().register_forward_hook(lambda *call: call[-1].requires_grad_(True))
    try:
        yield
    finally:
        hook.remove()


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def state_bytes(stepper: Any) -> int:
    """Return what a way of training keeps between its steps: its own parameters and the optimizer's state."""
    if not hasattr(stepper, "optimizer"):
        return 0
    own = [] if getattr(stepper, "trains_the_model", False) else stepper.optimizer.param_groups[0]["params"]
    held = [*own, *tree_leaves(dict(stepper.optimizer.state))]
    return sum(value.nbytes for value in held if isinstance(value, torch.Tensor))


def peak_bytes(way: Any, batch: Batch, weights: int) -> int:
    """Return the most memory in use during a step, with what all ways of training keep between their steps.

    On a CPU, whose allocator cannot be asked, this way's own; what operations use inside is not seen there.
    """
    if way.loaded.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        way(batch)
        return torch.cuda.max_memory_allocated()
    with Living() as living:
        way(batch)
    return living.peak + weights + state_bytes(way)


def measure(loaded: LoadedModel, row: Row, batch: Batch, arguments: argparse.Namespace, weights: int) -> None:
    """Fill in one line."""
    stepper = Stepper(loaded, row.variant, arguments.experts, row.checkpointing, row.compile)
    row.trained = stepper.bank.size if stepper.bank else 0
    floor = Stepper(loaded, "frozen", 0, row.checkpointing, False)
    for take_step in (stepper, floor, stepper):  # the optimizer's state is made in the first
        take_step(batch)
    pairs = []
    for pair in range(arguments.pairs):
        order = (stepper, floor) if pair % 2 else (floor, stepper)
        taken = {take_step: take_step(batch) for take_step in order}
        pairs.append((taken[stepper], taken[floor]))
    seconds, floors = np.array(pairs).T
    row.seconds = float(np.median(seconds))
    row.tokens_per_second = batch.input_ids.numel() / row.seconds
    row.ratio = float(np.median(seconds / floors))
    row.low, row.high = interval(seconds / floors)
    peak = peak_bytes(stepper, batch, weights)
    row.peak_gib, row.over_weights = peak / 2**30, peak / weights


def plan(arguments: argparse.Namespace) -> Iterator[Row]:
    """Return what is to be measured."""
    for size in arguments.sizes:
        for checkpointing in arguments.checkpointing:
            for compiled in (False, True) if arguments.compile else (False,):
                for variant in arguments.variants:
                    yield Row(size, variant, checkpointing, compiled)


def run(loaded: LoadedModel, arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure one line after the other; what does not fit is a line too."""
    weights = sum(p.numel() * p.element_size() for p in loaded.moe.model.parameters())
    for row in plan(arguments):
        rows, tokens = (int(part) for part in row.size.split("x"))
        trained = sum(loaded.moe.layer(e.layer).parameters_per_expert for e in loaded.moe.all_experts())
        why = why_not_trainable(trained, weights, available_bytes(str(loaded.device)))
        if row.variant == "all" and why:
            row.note = why
        else:
            try:
                measure(loaded, row, random_batch(loaded, rows, tokens), arguments, weights)
            except torch.OutOfMemoryError:
                row.note = "out of memory"
        if loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        yield row


def line(row: Row) -> str:
    """Write a line of the table."""
    cells = [row.size, row.variant, *("yes" if flag else "" for flag in (row.checkpointing, row.compile))]
    if row.note:
        return f"| {' | '.join(cells)} | {row.note} | | | | |"
    return (
        f"| {' | '.join(cells)} | {row.trained / 1e6:.2f} | {row.peak_gib:.3f} ({row.over_weights:.3f}) | "
        f"{row.seconds:.4f} | {row.tokens_per_second:,.0f} | {row.ratio:.3f} ({row.low:.3f} to {row.high:.3f}) |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--model", default="demo")
    parser.add_argument(
        "--shape", choices=["qwen3-30b"], help="random weights in this shape instead of a model"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--experts", type=int, default=12)
    parser.add_argument("--variants", type=listed, default=list(VARIANTS))
    parser.add_argument("--sizes", type=listed, default=["4x64", "16x64"], help="batch x tokens")
    parser.add_argument(
        "--checkpointing",
        type=lambda text: [part == "on" for part in listed(text)],
        default=[False, True],
        help="off,on",
    )
    parser.add_argument(
        "--compile", action="store_true", help="also with torch.compile on attention and norms"
    )
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.variants) - set(VARIANTS)
    if unknown:
        parser.error(f"unknown variants {', '.join(sorted(unknown))}: expected {', '.join(VARIANTS)}")
    quiet_transformers()
    if arguments.shape:
        loaded = qwen3_30b("cuda" if arguments.device == "auto" else arguments.device)
    else:
        loaded = load_model(resolve_model(arguments.model), arguments.dtype, arguments.device)
    where = {
        "model": loaded.ref.name,
        "device": torch.cuda.get_device_name() if loaded.device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "dtype": str(next(loaded.moe.model.parameters()).dtype),
        "experts": arguments.experts,
        "pairs": arguments.pairs,
    }
    if arguments.json:
        print(json.dumps({**where, "rows": [asdict(row) for row in run(loaded, arguments)]}))
        return
    print(", ".join(f"{name} {value}" for name, value in where.items()), end="\n\n")
    print(
        "| batch x tokens | variant | checkpointing | compile | million trained | peak GiB (x weights) | s/step "
        "| tokens/s | ratio to frozen (95 %) |\n|---|---|---|---|---|---|---|---|---|"
    )
    for row in run(loaded, arguments):
        print(line(row), flush=True)


if __name__ == "__main__":
    main()
