"""Parts `generation` and `ideas` of benchmarks/gpu.py: faster decoding, and where a training step's time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from expert_training import Stepper, random_batch
from gpu_answers import random_tokens
from gpu_part import Part, attempt, free_memory, timed

from harness.training.bank import experts_implementation

if TYPE_CHECKING:
    from harness.models.load import LoadedModel


def generate(loaded: LoadedModel, ids: torch.Tensor, new: int) -> torch.Tensor:
    """Answer greedily by transformers' own loop, [B, new]."""
    model: Any = loaded.moe.model
    with torch.inference_mode():
        whole = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False,
            temperature=None, top_p=None, top_k=None, pad_token_id=loaded.tokenizer.pad_token_id,
        )  # fmt: skip
    return whole[:, ids.shape[1] :]


class GraphedDecoder:
    """Greedy decoding with a cache of fixed size, whose step is recorded once as a CUDA graph and replayed.

    On a CPU the same step runs without a graph.

    Args:
        loaded: the model.
        rows, width, new: prompts, their tokens, and the tokens of an answer.
        experts: transformers' experts implementation for the steps; reading keeps the model's own.
    """

    def __init__(self, loaded: LoadedModel, rows: int, width: int, new: int, experts: str):
        from transformers import StaticCache

        self.loaded, self.width, self.new, self.experts = loaded, width, new, experts
        device = loaded.device
        self.cache = StaticCache(config=loaded.moe.model.config, max_cache_len=width + new)
        self.token = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.place = torch.zeros(1, 1, dtype=torch.long, device=device)
        self.columns = torch.arange(width + new, device=device)
        self.graph: Any = None

    @torch.inference_mode()
    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the answers, [B, new]."""
        self._read(ids)
        made = [self.token.clone()]
        if self.graph is None and ids.device.type == "cuda":
            self._record()
            self._read(ids)
        for _ in range(self.new - 1):
            if self.graph is None:
                with experts_implementation(self.loaded.moe, self.experts):
                    self._step()
            else:
                self.graph.replay()
            made.append(self.token.clone())
        return torch.cat(made, dim=1)

    def _read(self, ids: torch.Tensor) -> None:
        for layer in self.cache.layers:
            if layer.is_initialized:
                layer.cumulative_length.zero_()
        model: Any = self.loaded.moe.model
        self.token.copy_(
            model(ids, past_key_values=self.cache, use_cache=True, logits_to_keep=1).logits.argmax(-1)
        )
        self.place.fill_(self.width)

    def _step(self) -> None:
        model: Any = self.loaded.moe.model
        # A mask of one's own: making transformers' would ask the device. Prompts have no padding here.
        seen = (self.columns <= self.place).view(1, 1, 1, -1).expand(len(self.token), 1, 1, -1)
        logits = model(
            self.token,
            attention_mask=seen,
            position_ids=self.place,
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        self.token.copy_(logits[:, -1:].argmax(-1))
        self.place.add_(1)

    def _record(self) -> None:
        with experts_implementation(self.loaded.moe, self.experts):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(2):
                    self._step()
            torch.cuda.current_stream().wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._step()


def generation(loaded: LoadedModel, part: Part, batches: tuple[int, ...], width: int, new: int) -> None:
    """Compare ways of decoding with what a run does today: tokens a second, and the share of equal tokens.

    Args:
        loaded: the model.
        part: where the rows go.
        batches: prompts answered together.
        width: tokens of a prompt.
        new: tokens of an answer.
    """
    part.put(
        note="random weights make near ties in bfloat16, so a way that only rounds differently loses more answers "
        "here than with a trained model; equal is each way's second run with the first of what a run does today; "
        "'first' is the share of answers whose first 8 tokens are equal"
    )
    for rows in batches:
        ids = torch.tensor(random_tokens(loaded, rows, width), device=loaded.device)

        def kept(ids: torch.Tensor = ids) -> torch.Tensor:
            from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward

            # By another name: transformers changes its own for decoding.
            ALL_EXPERTS_FUNCTIONS.register("harness_grouped", grouped_mm_experts_forward)
            with experts_implementation(loaded.moe, "harness_grouped"):
                return generate(loaded, ids, new)

        def graphed(experts: str, rows: int = rows) -> Any:
            return lambda: GraphedDecoder(loaded, rows, width, new, experts)

        ways: dict[str, tuple[Any, bool]] = {
            "as a run does": (lambda ids=ids: generate(loaded, ids, new), False),
            "CUDA graph, grouped products": (graphed("grouped_mm"), True),
            "CUDA graph, batched products": (graphed("batched_mm"), True),
            "grouped products": (kept, False),
        }
        reference: list[torch.Tensor] = []
        for name, (way, prepared) in ways.items():
            row = part.row(way=name, batch=rows, prompt_tokens=width, new_tokens=new)
            if part.left < 8:
                row["note"] = "no time left"
                continue

            def measure(
                way: Any = way, prepared: bool = prepared, ids: torch.Tensor = ids, row: dict[str, Any] = row
            ) -> list[torch.Tensor]:
                made: list[torch.Tensor] = []
                decoder = way() if prepared else None
                for when in ("first_seconds", "seconds"):
                    row[when] = timed(
                        loaded.device, lambda: made.append(decoder(ids) if decoder is not None else way())
                    )
                return made

            answers = attempt(part, f"{name}, {rows} prompts", row, measure)
            if answers is not None:
                reference = reference or answers
                equal = answers[1] == reference[0]
                row |= {
                    "tokens_per_second": equal.numel() / row["seconds"],
                    "equal_tokens": float(equal.float().mean()),
                    "equal_answers": float(equal.all(dim=1).float().mean()),
                    "equal_first": float(equal[:, :8].all(dim=1).float().mean()),
                }
            del answers
            free_memory(loaded.device)
            part.write()


def ideas(loaded: LoadedModel, part: Part, size: str, n_experts: int, compiled: bool) -> None:
    """Profile a step of the bank: the operations that take the device's time."""
    rows, tokens = (int(side) for side in size.split("x"))
    device, batch = loaded.device, random_batch(loaded, rows, tokens)
    stepper = Stepper(loaded, "bank", n_experts, True, compiled)
    for _ in range(3):
        stepper(batch)
    plain = stepper(batch)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        stepper(batch)
    on_device = device.type == "cuda"
    found = []
    for event in profile.key_averages():
        is_kernel = event.device_type == torch.autograd.DeviceType.CUDA
        spent = event.self_device_time_total if on_device else event.self_cpu_time_total
        # What a range covers is in its kernels already.
        if spent and is_kernel == on_device and not getattr(event, "is_user_annotation", False):
            found.append((spent, event.key, event.count))
    found.sort(reverse=True)
    total, kernels = sum(spent for spent, _, _ in found) / 1e6, sum(calls for *_, calls in found)
    part.put(size=size, compiled=compiled, step_seconds=plain, device_busy_seconds=total, kernels=kernels)
    for spent, name, count in found[:25]:
        part.row(kernel=name[:160], calls=count, ms=spent / 1000, share=spent / 1e6 / total)
