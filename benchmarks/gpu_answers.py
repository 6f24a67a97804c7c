"""Parts `capture` and `stages` of benchmarks/gpu.py: what counting costs, and what a run's stages take."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from expert_training import Stepper, random_batch
from gpu_part import Part, alternated, attempt, compared, free_memory, timed
from scale import H100, SHAPES, Work, generation, training

from harness.data.prompts import Prompt
from harness.engines.base import Decoding
from harness.engines.transformers import TransformersEngine
from harness.routing.capture import RoutingCapture

if TYPE_CHECKING:
    from harness.models.load import LoadedModel


def random_tokens(loaded: LoadedModel, rows: int, tokens: int) -> list[list[int]]:
    """Return prompts of random tokens, all of one length."""
    drawn = np.random.default_rng(0).integers(10, loaded.moe.model.config.vocab_size, (rows, tokens))
    return [[int(token) for token in row] for row in drawn]


class Answers:
    """Batches of random prompts that the engine answers by the way that a run's prompts take, tokenizing apart."""

    def __init__(self, loaded: LoadedModel, rows: int, tokens: int):
        self.loaded = loaded
        self.engine = TransformersEngine(loaded, rows)
        self.prompts = [Prompt(f"p{i}", "", "benchmark", "benign") for i in range(rows)]
        self.tokens = random_tokens(loaded, rows, tokens)

    def seconds(self, new: int, capture: bool) -> float:
        """Time one batch's answers of `new` tokens, with the counts of its routing or without."""
        how = Decoding(new, "counts" if capture else None)
        return timed(self.loaded.device, lambda: self.engine.answer(self.prompts, self.tokens, how))


def capture(
    loaded: LoadedModel, part: Part, prefill: tuple[int, int], decode: tuple[int, int, int], pairs: int
) -> None:
    """Measure prefill and decoding with and without counts, alternated.

    Args:
        loaded: the model.
        part: where the rows go.
        prefill: prompts and tokens.
        decode: prompts, tokens of a prompt, new tokens.
        pairs: of runs.
    """
    rows, tokens = prefill
    reading = Answers(loaded, rows, tokens)
    making = Answers(loaded, *decode[:2])
    ids = torch.tensor(reading.tokens, device=loaded.device)

    def hooks(listening: bool) -> float:
        recorder = RoutingCapture(loaded.moe)

        def forward() -> None:
            with torch.inference_mode(), recorder.installed() if listening else nullcontext():
                loaded.moe.model(ids, use_cache=False, logits_to_keep=1)
                if listening:
                    recorder.take(rows)

        return timed(loaded.device, forward)

    kinds = {
        "prefill": (f"{rows} x {tokens}", 0.35, lambda counted: reading.seconds(1, counted)),
        "decode": (
            f"{decode[0]} x {decode[1]}, {decode[2]} new", 0.8, lambda counted: making.seconds(decode[2], counted)
        ),
        "prefill, recording alone": (f"{rows} x {tokens}", 1.0, hooks),
    }  # fmt: skip
    for name, (size, share, work) in kinds.items():
        if part.left < 3:
            part.row(kind=name, size=size, note="no time left")
            continue
        row = part.row(kind=name, size=size)

        def measure(row: dict[str, Any] = row, share: float = share, work: Any = work) -> None:
            for counted in (False, True):
                work(counted)  # warm up
            ways = {"without": lambda: work(False), "with": lambda: work(True)}

            def note(taken: dict[str, list[float]]) -> None:
                row.update(compared(taken["with"], taken["without"]))
                row["added_ms"] = 1000 * float(np.median(np.subtract(taken["with"], taken["without"])))
                part.write()

            alternated(ways, part.left * share, most=pairs, after=note)

        attempt(part, name, row, measure)
        free_memory(loaded.device)


def stages(loaded: LoadedModel, part: Part, n_prompts: int, batch: int, short: int) -> None:
    """Measure a few batches of each stage, scale them by count, and compare with the cost model.

    Args:
        loaded: the model.
        part: where the rows go.
        n_prompts: of each kind and role.
        batch: prompts answered together.
        short: new tokens that are really made; the rest of an answer is taken to cost the same a token.
    """
    work = Work(n_prompts, batch=batch)
    shape = next(shape for shape in SHAPES if shape.name == "Qwen3-30B-A3B")
    part.put(
        note=f"a few batches measured and scaled by count to {n_prompts} prompts of each kind and role; loading is "
        "left out, since there are no files to load; the cost model's machine is its H100",
        prompts=n_prompts, batch=batch, tokens=[work.prompt, work.answer], measured_new_tokens=short,
    )  # fmt: skip

    def answering(counted: bool) -> float:
        """Return the seconds of one full batch."""
        answers = Answers(loaded, batch, work.prompt)
        answers.seconds(2, counted)
        read = min(answers.seconds(1, counted) for _ in range(2))
        made = answers.seconds(1 + short, counted)
        step = (made - read) / short
        part.put(
            **{
                f"read_seconds{'_counted' if counted else ''}": read,
                f"step_seconds{'_counted' if counted else ''}": step,
            }
        )
        return read + (work.answer - 1) * step

    def add(stage: str, measured: float | None, model: float, row: dict[str, Any]) -> None:
        if measured is not None:
            row |= {
                "measured_seconds": measured,
                "model_seconds": model,
                "measured_over_model": measured / model,
            }
        part.row(stage=stage, **row)

    def predicted(answers: float) -> float:
        return generation(shape, H100, 1, answers, work.prompt, work.answer, batch)

    row: dict[str, Any] = {}
    counted = attempt(part, "answering with counts", row, lambda: answering(True))
    n = 2 * n_prompts
    add("capture", counted and counted * math.ceil(n / batch), predicted(n), row)
    row = {}
    plain = attempt(part, "answering", row, lambda: answering(False))
    for stage, n in (("own answers", n_prompts), ("answer, all variants", work.variants * 2 * n_prompts)):
        add(stage, plain and plain * math.ceil(n / batch), predicted(n), dict(row))
    free_memory(loaded.device)

    length, examples = work.prompt + work.answer, 16
    tokens = 3 * n_prompts * work.epochs * length * work.checkpoints

    def train() -> float:
        stepper, drawn = (
            Stepper(loaded, "bank", work.selected, True, False),
            random_batch(loaded, examples, length),
        )
        for _ in range(2):
            stepper(drawn)
        return float(np.median([stepper(drawn) for _ in range(5)]))

    row = {}
    step = attempt(part, "training", row, train)
    add(
        f"train, {work.checkpoints} variants", step and step * tokens / (examples * length),
        training(shape, H100, 1, tokens), row,
    )  # fmt: skip
    free_memory(loaded.device)

    ids = torch.tensor(random_tokens(loaded, 32, 60), device=loaded.device)

    def read() -> float:
        def forward() -> None:
            with torch.inference_mode():
                loaded.moe.model(ids, use_cache=False)

        timed(loaded.device, forward)
        return float(np.median([timed(loaded.device, forward) for _ in range(5)]))

    row = {}
    seconds = attempt(part, "capability", row, read)
    tokens = work.variants * work.capability
    add(
        "capability, all variants", seconds and seconds * tokens / ids.numel(),
        2 * shape.active * tokens / (H100.flops * H100.prefill), row,
    )  # fmt: skip
