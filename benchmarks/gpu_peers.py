"""Part `peers` of benchmarks/gpu.py: the bank beside how experts of fused tensors are trained elsewhere.

PEFT's LoRA through `target_parameters`, on all experts since it has no way to name some; and gradients of the whole
fused tensors whose rows are masked, with AdamW in the model's dtype, on as many of the upper layers as fit. Same model,
loss, batch and activation checkpointing; both beside a bank, which for the masked gradients is one of the same layers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from expert_training import Stepper, choose, synchronize
from gpu_part import Part, attempt, free_memory
from gpu_training import measure
from torch.utils.checkpoint import set_checkpoint_early_stop

from harness.training.bank import ExpertBank
from harness.training.checkpointing import checkpointed_from
from harness.training.loop import answer_loss

if TYPE_CHECKING:
    from harness.models.load import LoadedModel
    from harness.models.moe import Expert
    from harness.training.examples import Batch

# Kept free for activations and the bank beside, when layers are counted.
_RESERVE = 8 * 2**30


def peers(loaded: LoadedModel, part: Part, size: str, n_experts: int) -> None:
    """Measure both beside a bank."""
    row: dict[str, Any] = {}
    masked(loaded, part, size, n_experts)
    free_memory(loaded.device)
    began = time.perf_counter()
    peft = attempt(part, "PEFT", row, lambda: PeftStepper(loaded))
    if peft is None:
        part.row(size=size, variant="PEFT LoRA", **row)
        return
    part.put(peft_built_seconds=time.perf_counter() - began, peft_version=peft.version)
    ways = {"bank": Stepper(loaded, "bank", n_experts, True, False), "PEFT LoRA": peft}
    measure(part, loaded, size, ways, "bank", part.left - 5, layers=len(loaded.moe.layers))


def masked(loaded: LoadedModel, part: Part, size: str, n_experts: int) -> None:
    """Measure masked gradients beside a bank on the same layers; with fewer layers where they do not fit."""
    free_memory(loaded.device)
    n = layers_that_fit(loaded)
    budget = part.left * 0.25
    for layers in range(n, 0, -1):
        kept = {layer.index for layer in loaded.moe.layers[-layers:]}
        experts = [expert for expert in choose(loaded.moe, "all", 0) if expert.layer in kept]
        generator = torch.Generator().manual_seed(0)
        chosen = [experts[i] for i in torch.randperm(len(experts), generator=generator)[:n_experts].tolist()]
        ways = {"bank": bank_of(loaded, chosen), "masked gradients": MaskedStepper(loaded, chosen, kept)}
        rows = measure(part, loaded, size, ways, "bank", min(budget, part.left - 15), layers=layers)
        if rows["masked gradients"].get("note") != "out of memory" or part.left < 20:
            return
        del ways


def layers_that_fit(loaded: LoadedModel) -> int:
    """Return of how many layers the fused tensors' gradients and two moments fit."""
    layers = loaded.moe.layers
    if loaded.device.type != "cuda":
        return len(layers)
    fused = sum(layers[0].weight(name).nbytes for name in layers[0].weights)
    free = torch.cuda.mem_get_info()[0] - _RESERVE
    return max(1, min(len(layers), int(free // (3 * fused))))


def bank_of(loaded: LoadedModel, experts: list[Expert]) -> Stepper:
    """Return a stepper whose bank holds certain experts."""
    stepper = Stepper(loaded, "frozen", 0, True, False)
    stepper.bank = ExpertBank(loaded.moe, experts)
    stepper.first = min(stepper.bank.layers)
    stepper.optimizer = torch.optim.AdamW(stepper.bank.parameters(), lr=1e-5)
    return stepper


class MaskedStepper:
    """Gradients of whole fused tensors, set to zero outside the selected rows.

    Without weight decay, which would move the other rows all the same.
    """

    trains_the_model = True

    def __init__(self, loaded: LoadedModel, experts: list[Expert], layers: set[int]):
        self.loaded, self.first = loaded, min(layers)
        self.masks: dict[torch.nn.Parameter, torch.Tensor] = {}
        for layer in loaded.moe.layers:
            if layer.index not in layers:
                continue
            mask = torch.zeros(layer.n_experts, device=loaded.device, dtype=torch.bfloat16)
            mask[[expert.expert for expert in experts if expert.layer == layer.index]] = 1
            for name in layer.weights:
                self.masks[layer.experts.get_parameter(name)] = mask.view(-1, 1, 1)
        # One kernel, without temporary copies.
        fused = loaded.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(list(self.masks), lr=1e-5, weight_decay=0.0, fused=fused)

    def __call__(self, batch: Batch) -> float:
        """Take a step and return its seconds."""
        device = self.loaded.device
        for parameter in self.masks:
            parameter.requires_grad_(True)
        try:
            with checkpointed_from(self.loaded.moe, self.first):
                synchronize(device)
                started = time.perf_counter()
                (answer_loss(self.loaded.moe.model, batch) / len(batch.targets)).backward()
                for parameter, mask in self.masks.items():
                    assert parameter.grad is not None
                    parameter.grad.mul_(mask)
                torch.nn.utils.clip_grad_norm_(list(self.masks), 1.0, foreach=False)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                synchronize(device)
                return time.perf_counter() - started
        finally:
            for parameter in self.masks:
                parameter.requires_grad_(False)


class PeftStepper:
    """PEFT's LoRA of rank 8 on the fused expert tensors, by PEFT's own forward pass."""

    def __init__(self, loaded: LoadedModel):
        import peft

        self.loaded, self.version = loaded, peft.__version__
        model = loaded.moe.model
        self.places = [
            (model.get_submodule(layer.name.rpartition(".")[0]), layer) for layer in loaded.moe.layers
        ]
        config = peft.LoraConfig(
            r=8,
            lora_alpha=16,
            target_modules=[],
            target_parameters=[f"experts.{name}" for name in loaded.moe.layers[0].weights],
        )
        torch.manual_seed(0)
        try:
            with torch.device(loaded.device):
                peft.get_peft_model(model, config)
            self.wrapped = [place.experts for place, _ in self.places]
        finally:
            for place, layer in self.places:
                place.experts = layer.experts
            vars(model).pop("peft_config", None)
        self.parameters = [p for experts in self.wrapped for p in experts.parameters() if p.requires_grad]
        if not self.parameters or any(
            wrapped is layer.experts for wrapped, (_, layer) in zip(self.wrapped, self.places, strict=True)
        ):
            raise RuntimeError("PEFT wrapped nothing")
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5)

    def __call__(self, batch: Batch) -> float:
        """Take a step and return its seconds."""
        device, moe = self.loaded.device, self.loaded.moe
        # A recomputation that stops early would leave PEFT's parametrizations in the middle.
        with self._in_place(), checkpointed_from(moe, moe.layers[0].index), set_checkpoint_early_stop(False):
            synchronize(device)
            started = time.perf_counter()
            (answer_loss(moe.model, batch) / len(batch.targets)).backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            synchronize(device)
            return time.perf_counter() - started

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Let the wrapped experts stand in the model's own place."""
        for wrapped, (place, _) in zip(self.wrapped, self.places, strict=True):
            place.experts = wrapped
        try:
            yield
        finally:
            for place, layer in self.places:
                place.experts = layer.experts
