"""What this package costs on a CPU beside how others do the same, and beside what cannot be avoided.

    python benchmarks/peers.py --output peers.json                 # about five minutes on two cores
    python benchmarks/peers.py --table peers.json                  # the file as tables, measuring nothing

Training: the bank, PEFT's LoRA on the fused tensors and whole gradients with masked rows, in turn, on random weights.
Capture: answers counted on the way, beside answers that are read once more for all router logits, which are saved: the
way of tools that came before. Start-up, demo and report beside their floors: the imports that a command line needs, the
demo's training and answers without anything around them, reading a run's files and writing as many bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from capture import prompts, random_qwen3
from gpu import where
from gpu_part import Part, alternated, compared
from gpu_peers import peers
from start_up import HELP, IMPORTS, seconds

from harness.engines.base import Decoding
from harness.engines.transformers import TransformersEngine
from harness.models.load import LoadedModel, quiet_transformers
from harness.routing.files import save_routing

PAIRS = 20


def small(device: str = "cpu") -> LoadedModel:
    """Build a Qwen3-MoE of 122 million random weights: 8 layers of 32 experts, top-4."""
    return random_qwen3(
        "peers", device, vocab_size=8192, hidden_size=512, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=2, head_dim=64, moe_intermediate_size=256, num_experts=32, num_experts_per_tok=4,
    )  # fmt: skip


def capture(loaded: LoadedModel, part: Part) -> None:
    """Measure answers alone, answers counted, and answers read again for logits that are saved."""
    engine, asked = TransformersEngine(loaded, 8), prompts(8, 40)
    tokens = engine.chat.tokens([prompt.text for prompt in asked])
    model, new = loaded.moe.model, 16

    def taken(work: Callable[[Path], Any]) -> Callable[[], float]:
        def timed() -> float:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                work(Path(folder) / "kept.npy")
                spent = time.perf_counter() - began
                sizes[work.__name__] = sum(file.stat().st_size for file in Path(folder).iterdir())
            return spent

        return timed

    def alone(file: Path) -> None:
        engine.answer(asked, tokens, Decoding(new, None))

    def counted(file: Path) -> None:
        routing = engine.answer(asked, tokens, Decoding(new, "counts")).routing
        assert routing is not None
        save_routing(routing, file.with_suffix(".safetensors"))

    def logits(file: Path) -> None:
        ids = [row + [5] * new for row in tokens]
        engine.answer(asked, tokens, Decoding(new, None))
        padded = loaded.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            out = model(**padded, output_router_logits=True, use_cache=False, logits_to_keep=1)
        np.save(file, torch.stack([layer.float() for layer in out.router_logits]).numpy())

    sizes: dict[str, int] = {}
    ways = {work.__name__: taken(work) for work in (alone, counted, logits)}
    for work in ways.values():
        work()
    found = alternated(ways, 120.0, most=PAIRS)
    routed = sum(len(row) + new - 1 for row in tokens)
    for name in ("counted", "logits"):
        part.row(
            what=name, of="answers alone", **compared(found[name], found["alone"]), bytes=sizes[name],
            bytes_per_token=sizes[name] / routed,
        )  # fmt: skip


def start_up(part: Part) -> None:
    """Measure `harness --help` beside the imports of its libraries."""
    for arguments in (HELP, IMPORTS):
        seconds(arguments)
    found = alternated(
        {"help": lambda: seconds(HELP)[0], "imports": lambda: seconds(IMPORTS)[0]}, 60.0, most=PAIRS
    )
    part.row(
        what="harness --help",
        of="importing typer, rich, pydantic",
        **compared(found["help"], found["imports"]),
    )


def demo(part: Part) -> None:
    """Measure a run of the demo beside what its stages say that answering and training took, and its report."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        began = time.perf_counter()
        _harness("run", "--model", "demo", "--output", run)
        whole = time.perf_counter() - began
        stages = json.loads((run / "run.json").read_text())["stages"]
        work = sum(
            record["seconds"] for name, record in stages.items()
            if name.split()[0] in ("capture", "own", "train", "answer", "capability", "drift")
        )  # fmt: skip
        part.row(
            what="harness run, the demo", of="its stages that the model works in", seconds=whole,
            baseline_seconds=work, ratio=whole / work, pairs=1,
        )  # fmt: skip
        html = run / "report.html"

        def report() -> float:
            began = time.perf_counter()
            _harness("report", run)
            return time.perf_counter() - began

        def floor() -> float:
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", _FLOOR, run, Path(folder) / "floor"], check=True)
            return time.perf_counter() - began

        found = alternated({"report": report, "floor": floor}, 60.0, most=10)
        part.row(
            what="harness report, the demo", of="reading the run's files and writing as many bytes",
            **compared(found["report"], found["floor"]), bytes=html.stat().st_size,
        )  # fmt: skip


_FLOOR = """
import sys, json, pathlib
import numpy, pandas, pydantic, typer, rich
run = pathlib.Path(sys.argv[1])
for file in run.rglob("*.json*"):
    for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
        json.loads(line)
pathlib.Path(sys.argv[2]).write_bytes((run / "report.html").read_bytes())
"""


def _harness(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def table(result: dict[str, Any]) -> str:
    """Return the rows as two tables."""
    training = [("way", "layers", "million trained", "s/step", "ratio (95 %; pairs)"), ("---",) * 5]
    beside = [("what", "beside", "s", "s beside", "ratio (95 %; pairs)", "bytes a token"), ("---",) * 6]
    for row in result["rows"]:
        spread = f" ({row['low']:.3f} to {row['high']:.3f}; {row['pairs']})" if "low" in row else " (once)"
        ratio = f"{row['ratio']:.3f}{spread}" if "ratio" in row else row.get("note", "")
        if "variant" in row:
            cells = (row["variant"], str(row.get("layers", "")), f"{row.get('trained', 0) / 1e6:,.1f}")
            training.append((*cells, f"{row.get('seconds', float('nan')):.3f}", ratio))
        else:
            kept = f"{row['bytes_per_token']:,.0f}" if "bytes_per_token" in row else ""
            beside.append(
                (
                    row["what"],
                    row["of"],
                    f"{row['seconds']:.2f}",
                    f"{row['baseline_seconds']:.2f}",
                    ratio,
                    kept,
                )
            )
    facts = ", ".join(
        f"{name} {result[name]}"
        for name in ("date", "commit", "torch", "transformers", "cores", "machine", "seeds")
    )
    tables = ["\n".join(f"| {' | '.join(row)} |" for row in rows) for rows in (training, beside)]
    return "\n\n".join([facts, *tables])


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("peers.json"))
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())))
        return
    quiet_transformers()
    torch.manual_seed(0)
    loaded = small()
    part = Part(arguments.output, where(loaded.device, "peers: 8 layers, 32 experts, top-4, 512 wide"), 400.0)
    capture(loaded, part)
    start_up(part)
    demo(part)
    part.budget = part.spent + 150.0
    peers(loaded, part, "4x64", 12)
    part.put(finished=True)
    print(table(part.result))


if __name__ == "__main__":
    main()
