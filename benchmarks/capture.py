"""What routing capture costs: generation with and without it, alternating in one process.

    python benchmarks/capture.py --model smol-moe --pairs 24
    python benchmarks/capture.py --shape qwen3-30b --device cuda     # random weights, on a GPU with 80 GB

Prints the median of the ratios (with over without) of neighbouring runs and its distribution-free 95 % interval
(order statistics of the pairs). Which of a pair comes first alternates, so that a drift of the machine's speed cancels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binom

from harness.data.prompts import Prompt
from harness.engines.transformers import TransformersEngine
from harness.models.load import (
    LoadedModel,
    ModelRef,
    load_model,
    load_tokenizer,
    quiet_transformers,
    resolve_model,
)
from harness.models.moe import find_moe

WORDS = ("letters", "rivers", "mountains", "bread", "music", "trains", "clocks", "gardens", "maps", "paint")


def prompts(n: int, words: int) -> list[Prompt]:
    """Return made-up requests of about the same length."""
    draw = np.random.default_rng(0)
    return [
        Prompt(f"p{i}", " ".join(draw.choice(WORDS, words + i % 8).tolist()), "benchmark", "benign")
        for i in range(n)
    ]


def qwen3_30b(device: str) -> LoadedModel:
    """Build Qwen3-30B-A3B's shape with random bfloat16 weights, straight on the device."""
    return random_qwen3(
        "qwen3-30b", device, vocab_size=151936, hidden_size=2048, num_hidden_layers=48, num_attention_heads=32,
        num_key_value_heads=4, head_dim=128, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
    )  # fmt: skip


def qwen3_tiny(device: str) -> LoadedModel:
    """Build the same kind of model so small that a benchmark can be tried out on a CPU."""
    return random_qwen3(
        "tiny", device, vocab_size=2048, hidden_size=64, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, moe_intermediate_size=32, num_experts=8, num_experts_per_tok=2,
    )  # fmt: skip


def random_qwen3(name: str, device: str, **sizes: int) -> LoadedModel:
    """Build a Qwen3-MoE with random bfloat16 weights, straight on the device."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    tokenizer = load_tokenizer(resolve_model("demo"))
    config = Qwen3MoeConfig(
        **sizes, norm_topk_prob=True, max_position_embeddings=4096, tie_word_embeddings=False,
        eos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Qwen3MoeForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    # The demo's tokenizer makes the prompts; no answer may end before its length.
    model.generation_config.eos_token_id = [-1]
    model.eval().requires_grad_(False)
    return LoadedModel(
        ModelRef(name, Path()), find_moe(model), tokenizer, torch.device(device), torch.bfloat16
    )


def seconds(engine: TransformersEngine, batch: list[Prompt], tokens: int, capture: Any) -> float:
    """Time one batch's answers, its counting included."""
    if engine.loaded.device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    next(engine.generate([batch], tokens, capture=capture))
    if engine.loaded.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """Return the median's 95 % interval by order statistics: no assumption on how the ratios are distributed."""
    ordered = np.sort(ratios)
    low = int(binom.ppf(0.025, len(ordered), 0.5))
    return float(ordered[low]), float(ordered[len(ordered) - 1 - low])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smol-moe")
    parser.add_argument(
        "--shape", choices=["qwen3-30b"], help="random weights in this shape instead of a model"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--record", choices=["counts", "tokens", "logits"], default="counts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    quiet_transformers()
    if arguments.shape:
        loaded = qwen3_30b("cuda" if arguments.device == "auto" else arguments.device)
    else:
        loaded = load_model(resolve_model(arguments.model), arguments.dtype, arguments.device)
        loaded.moe.model.generation_config.eos_token_id = [-1]
    engine = TransformersEngine(loaded, arguments.batch)
    batch = prompts(arguments.batch, arguments.words)
    for capture in (None, arguments.record):
        seconds(engine, batch, arguments.tokens, capture)  # warm up
    pairs = []
    for pair in range(arguments.pairs):
        order = (None, arguments.record) if pair % 2 else (arguments.record, None)
        pairs.append({capture: seconds(engine, batch, arguments.tokens, capture) for capture in order})
    without = np.array([pair[None] for pair in pairs])
    ratios = np.array([pair[arguments.record] / pair[None] for pair in pairs])
    low, high = interval(ratios)
    device = (
        torch.cuda.get_device_name()
        if loaded.device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    result = {
        "model": loaded.ref.name, "device": device, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "torch": torch.__version__, "dtype": str(loaded.checkpoint_dtype), "record": arguments.record,
        "batch": arguments.batch, "new_tokens": arguments.tokens, "pairs": len(pairs),
        "seconds_without": float(np.median(without)), "ratio": float(np.median(ratios)), "low": low, "high": high,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:16} {value:.4f}" if isinstance(value, float) else f"{name:16} {value}")


if __name__ == "__main__":
    main()
