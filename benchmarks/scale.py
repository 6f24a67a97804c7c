"""What a run costs, by a cost model: GPU-hours and bytes for large models, and how far off the model is here.

    python benchmarks/scale.py                  # the table of docs/scale.md
    python benchmarks/scale.py --check RUN      # a finished run of this machine against the model, stage by stage

The model. A token costs 2 FLOPs per weight it passes (attention over the context is left out: answers are short).
Reading a prompt is bound by that; a decoding step by the bytes of the weights that its batch touches, each expert once,
and by its FLOPs, whichever takes longer, and each of its layers takes `layer_overhead` at least. Training a token costs
4 FLOPs per weight without checkpointing (forward, and the gradient of activations alone: frozen weights have none), 6
with. A model is loaded twice for each variant that is served as a checkpoint, and twice besides. What machines reach of
their peaks is stated below, with its source; `--check` takes a machine's peaks from two probes and assumed shares.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Shape:
    """A model, in weights.

    Attributes:
        layers: transformer layers; `dense` of them have a plain MLP of `dense_width`.
        shared: shared experts, of the same width.
        attention: weights of a layer's attention.
        kv_bytes: attention cache of a token in a layer.
    """

    name: str
    layers: int
    hidden: int
    width: int
    experts: int
    k: int
    vocabulary: int
    attention: int
    kv_bytes: int
    dense: int = 0
    dense_width: int = 0
    shared: int = 0

    @property
    def expert(self) -> int:
        """Weights of one expert."""
        return 3 * self.hidden * self.width

    def weights(self, experts: float) -> float:
        """Weights with so many routed experts a layer, the output head counted and the embedding not."""
        moe = self.layers - self.dense
        return (
            self.layers * self.attention
            + self.dense * 3 * self.hidden * self.dense_width
            + moe * ((experts + self.shared) * self.expert + self.hidden * self.experts)
            + self.hidden * self.vocabulary
        )

    @property
    def active(self) -> float:
        """Weights that a token passes."""
        return self.weights(self.k)

    @property
    def total(self) -> float:
        """All weights."""
        return self.weights(self.experts) + self.hidden * self.vocabulary

    def touched(self, tokens: float) -> float:
        """Weights that a step of so many tokens reads, if they choose experts evenly."""
        return self.weights(self.experts * (1 - (1 - self.k / self.experts) ** tokens))


@dataclass(frozen=True)
class Machine:
    """One device, and the share of its peaks that the work reaches.

    Attributes:
        flops, bandwidth, memory: peaks, in FLOP/s, bytes/s and bytes.
        disk: bytes/s at which weights are loaded.
        prefill, decode, train: share of FLOP/s, of bytes/s, of FLOP/s.
        layer_overhead: seconds that a layer of a decoding step takes at least.
        weight_bytes: of a weight in memory.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float
    disk: float
    prefill: float
    decode: float
    train: float
    layer_overhead: float
    weight_bytes: int = 2


# The transformers engine, as measured on Qwen3-30B-A3B's shape (docs/results/gpu.md): reading 64 x 60 tokens took
# 0.183 s, a step of 64 answers 0.211 s, bound by launches, and training 5,400 tokens/s, 16 x 188 at a time. What it
# reaches of the bandwidth did not show, so that is assumed.
H100 = Machine(
    "H100 80 GB", 989e12, 3.35e12, 80e9, 2e9, prefill=0.13, decode=0.5, train=0.10, layer_overhead=0.0044
)
# What an engine that replays its steps could reach, with the best setting of training that was measured: 14,000
# tokens/s, compiled, 64 x 512 at a time. Reading and decoding are assumed.
H100_FUSED = Machine(
    "H100 80 GB, fused",
    989e12,
    3.35e12,
    80e9,
    2e9,
    prefill=0.4,
    decode=0.5,
    train=0.26,
    layer_overhead=0.0002,
)


def _gqa(hidden: int, heads: int, kv: int, size: int) -> int:
    return 2 * hidden * heads * size + 2 * hidden * kv * size


SHAPES = (
    Shape("Qwen3-30B-A3B", 48, 2048, 768, 128, 8, 151936, _gqa(2048, 32, 4, 128), 2 * 2 * 4 * 128),
    Shape("Qwen3-235B-A22B", 94, 4096, 1536, 128, 8, 151936, _gqa(4096, 64, 4, 128), 2 * 2 * 4 * 128),
    # Latent attention: query and output through low ranks, 576 numbers a token in the cache.
    Shape(
        "DeepSeek-V3 (671B)", 61, 7168, 2048, 256, 8, 129280, 187_000_000, 2 * 576,
        dense=3, dense_width=18432, shared=1,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A run: harmful and benign prompts, as many of each.

    Attributes:
        prompts: of each kind and role (identify, train, test).
        prompt, answer: tokens.
        variants: that answer the test prompts; `checkpoints` of them are trained, and served as checkpoints.
        epochs: passes over the examples: a refusal for each harmful prompt, two benign answers beside it.
        capability: tokens read by lm-eval for each variant (PIQA: 1,838 items of 2 choices of 60 tokens).
        selected: experts that are trained.
    """

    prompts: int
    prompt: int = 60
    answer: int = 128
    variants: int = 5
    checkpoints: int = 2
    epochs: int = 3
    capability: int = 1838 * 2 * 60
    selected: int = 50
    batch: int = 256


def generation(
    shape: Shape, machine: Machine, gpus: int, answers: float, prompt: float, new: float, batch: int
) -> float:
    """Return the seconds in which so many answers are generated."""
    batch = max(1, min(batch, math.ceil(answers)))
    steps = math.ceil(answers / batch) * new
    read = 2 * shape.active * prompt * answers / (gpus * machine.flops * machine.prefill)
    moved = machine.weight_bytes * shape.touched(batch) + batch * shape.layers * shape.kv_bytes * (
        prompt + new / 2
    )
    step = max(
        moved / (gpus * machine.bandwidth * machine.decode),
        2 * shape.active * batch / (gpus * machine.flops * machine.prefill),
        machine.layer_overhead * shape.layers,
    )
    return read + steps * step


def training(shape: Shape, machine: Machine, gpus: int, tokens: float, checkpointing: bool = True) -> float:
    """Return the seconds in which so many tokens are trained on."""
    return (6 if checkpointing else 4) * shape.active * tokens / (gpus * machine.flops * machine.train)


def gpus_needed(shape: Shape, machine: Machine) -> int:
    """Return how many devices hold the weights with a fifth to spare, a power of two."""
    return 2 ** math.ceil(math.log2(max(1.0, 1.2 * shape.total * machine.weight_bytes / machine.memory)))


def cost(shape: Shape, machine: Machine, work: Work) -> dict[str, float]:
    """Return GPU-hours by what is done, and bytes by what is kept."""
    gpus = gpus_needed(shape, machine)

    def hours(seconds: float) -> float:
        return gpus * seconds / 3600

    def answers(n: float) -> float:
        return generation(shape, machine, gpus, n, work.prompt, work.answer, work.batch)

    examples = 3 * work.prompts * work.epochs
    loads = 2 + 2 * work.checkpoints
    moe = shape.layers - shape.dense
    rows = 2 * work.prompts
    return {
        "gpus": gpus,
        "capture": hours(answers(2 * work.prompts)),
        "own answers": hours(answers(work.prompts)),
        "train": work.checkpoints
        * hours(training(shape, machine, gpus, examples * (work.prompt + work.answer))),
        "answer": work.variants * hours(answers(2 * work.prompts)),
        "capability": work.variants
        * hours(2 * shape.active * work.capability / (gpus * machine.flops * machine.prefill)),
        "loading": loads * hours(machine.weight_bytes * shape.total / machine.disk),
        "weights": machine.weight_bytes * shape.total,
        # float32 values, gradients and two moments, and the working copy.
        "trained": 18 * work.selected * shape.expert,
        "delta": machine.weight_bytes * work.selected * shape.expert,
        # Counts and gate weights of four phases, int32 and float32.
        "routing": rows * 4 * moe * shape.experts * 8,
        "answers": rows * (work.variants + 1) * 6 * (work.prompt + work.answer),
    }


def table(machine: Machine, prompts: tuple[int, ...]) -> str:
    """Return the table of models and numbers of prompts."""
    head = (
        "model",
        "GPUs",
        "prompts",
        "capture",
        "own answers",
        "train",
        "answer",
        "capability",
        "loading",
        "GPU-hours",
        "fused",
    )
    lines = [head, ("---",) * len(head)]
    stages = head[3:9]
    for shape in SHAPES:
        for n in prompts:
            found = cost(shape, machine, Work(n))
            hours = [found[stage] for stage in stages]
            fused = cost(shape, H100_FUSED, Work(n))
            lines.append(
                (
                    shape.name,
                    str(int(found["gpus"])),
                    f"{n:,}",
                    *map(_hours, hours),
                    _hours(sum(hours)),
                    _hours(sum(fused[stage] for stage in stages)),
                )
            )
    sizes = (
        "model",
        "weights, total / active",
        "of a layer's step of 256 tokens",
        "one merged checkpoint",
        "training state",
        "delta",
        "routing, 1,000 prompts",
    )
    kept = [sizes, ("---",) * len(sizes)]
    for shape in SHAPES:
        found = cost(shape, machine, Work(1000))
        share = shape.touched(256) / shape.weights(shape.experts)
        kept.append((
            shape.name, f"{shape.total / 1e9:.0f}B / {shape.active / 1e9:.1f}B", f"{share:.0%} of the weights",
            _bytes(found["weights"]), _bytes(found["trained"]), _bytes(found["delta"]), _bytes(found["routing"]),
        ))  # fmt: skip
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in rows) for rows in (lines, kept))


def _hours(hours: float) -> str:
    return f"{hours:.2f}" if hours < 10 else f"{hours:,.0f}"


def _bytes(n: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n / 1e3:.0f} kB"


def probed() -> Machine:
    """Measure this machine's peaks: a large matrix product, and a large copy."""
    dtype = torch.bfloat16
    a, b = torch.randn(1024, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    flops = 2 * 1024**3 / _fastest(lambda: a @ b)
    source = torch.empty(2**28, dtype=torch.uint8)
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() / _fastest(lambda: target.copy_(source))
    return Machine(
        "this CPU", flops, bandwidth, 0.0, 1e9, H100_FUSED.prefill, H100_FUSED.decode, H100_FUSED.train, 0.0
    )


def _fastest(work: Any, times: int = 10) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def shape_of(config: dict[str, Any]) -> Shape:
    """Return the shape of a Mixtral-like checkpoint."""
    hidden, heads, kv = (
        config[name] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    size = config.get("head_dim") or hidden // heads
    return Shape(
        config["model_type"], config["num_hidden_layers"], hidden,
        config.get("moe_intermediate_size") or config["intermediate_size"],
        config.get("num_local_experts") or config["num_experts"], config["num_experts_per_tok"],
        config["vocab_size"], _gqa(hidden, heads, kv, size), 2 * 2 * kv * size,
    )  # fmt: skip


def check(run: Path) -> str:
    """Return a finished run's seconds beside what the model says of it."""
    state = json.loads((run / "run.json").read_text())
    config = state["config"]
    shape = shape_of(json.loads((Path(state["model"]["path"]) / "config.json").read_text()))
    machine = probed()
    batch = config["generation"]["batch_size"]
    lines = [
        ("stage", "tokens read / made", "measured, s", "by the model, s", "measured / model"),
        ("---",) * 5,
    ]
    examples: list[int] = []
    for stage, record in state["stages"].items():
        file = _answers(run, stage)
        if file is not None and file.is_file():
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            read = sum(row["prompt_tokens"] for row in rows) / len(rows)
            # A batch runs until its longest answer ends.
            made = max(row["generated_tokens"] for row in rows)
            if stage.startswith("own answers"):
                examples += [row["prompt_tokens"] + row["generated_tokens"] for row in rows]
            predicted = generation(shape, machine, 1, len(rows), read, made, batch)
            tokens = f"{round(read * len(rows)):,} / {made * len(rows):,}"
        elif stage.startswith("train "):
            steps = (run / "variants" / stage.split()[1] / "train.jsonl").read_text().splitlines()
            training_of = config["training"]
            n = len(steps) * training_of["batch_size"] * training_of["gradient_accumulation_steps"]
            trained = n * sum(examples) / len(examples)
            predicted = training(shape, machine, 1, trained, training_of["gradient_checkpointing"])
            tokens = f"{round(trained):,} trained"
        else:
            continue
        ratio = record["seconds"] / predicted
        lines.append((stage, tokens, f"{record['seconds']:.1f}", f"{predicted:.1f}", f"{ratio:.2f}"))
    head = (
        f"{run.name}: {shape.total / 1e6:.0f}M weights, {shape.active / 1e6:.0f}M active; this machine by two probes: "
        f"{machine.flops / 1e9:.0f} GFLOP/s in bfloat16, {machine.bandwidth / 1e9:.1f} GB/s; "
        f"{torch.get_num_threads()} threads"
    )
    return head + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _answers(run: Path, stage: str) -> Path | None:
    kind, _, rest = stage.partition(" ")
    if kind == "capture":
        return run / "routing" / f"{rest}.jsonl"
    if stage.startswith("own answers "):
        return run / "training" / f"{stage.removeprefix('own answers ')}.jsonl"
    if kind == "answer":
        variant, _, task = rest.partition("/")
        return run / "variants" / variant / "responses" / f"{task}.jsonl"
    return None


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", type=Path, metavar="RUN", help="compare a finished run with the model")
    parser.add_argument(
        "--prompts", type=lambda text: tuple(map(int, text.split(","))), default=(10, 100, 1000, 10000)
    )
    arguments = parser.parse_args()
    print(check(arguments.check) if arguments.check else table(H100, arguments.prompts))


if __name__ == "__main__":
    main()
