"""Training beyond one device: frozen weights sharded over processes, the bank whole on each.

torch's `fully_shard` (FSDP2) splits each weight over the processes of a device mesh and gathers a layer's when it
runs, so that a model needs its size once over all devices. What is trained is small, and every process keeps all of it:
each takes a share of every batch, gradients are summed, and all take the same step. The loss is divided by the answer
tokens of all processes together, so their number changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import distributed

from harness.training.examples import Example

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from harness.models.moe import MoEModel


@dataclass(frozen=True)
class Ranks:
    """This process's place among those that train together; by default it is alone."""

    rank: int = 0
    size: int = 1

    def share(self, examples: Sequence[Example]) -> list[Example]:
        """Return this process's part of a batch.

        All run the same forward passes, since each gathers weights from all. One without an example of its own runs
        the first one's prompt, with no answer to learn.
        """
        own = list(examples[self.rank :: self.size])
        return own or [replace(examples[0], answer=())]

    def total(self, value: float, device: torch.device) -> float:
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return value
        summed = torch.tensor(value, dtype=torch.float64, device=device)
        distributed.all_reduce(summed)
        return float(summed)

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by the sum over all processes; the same bits on each, so that they never part."""
        if self.size == 1:
            return
        waiting = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            waiting.append(distributed.all_reduce(parameter.grad, async_op=True))
        for work in waiting:
            work.wait()


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[Ranks, DeviceMesh]]:
    """Join the processes that torchrun started, inside the block.

    Args:
        device: of this process; NCCL connects GPUs, gloo CPUs.
    """
    from torch.distributed.device_mesh import init_device_mesh

    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        ranks = Ranks(distributed.get_rank(), distributed.get_world_size())
        yield ranks, init_device_mesh(device.type, (ranks.size,))
    finally:
        distributed.destroy_process_group()


def shard(moe: MoEModel, mesh: DeviceMesh) -> None:
    """Split a model's weights over the processes of a mesh, in place; its parameters become DTensors.

    Each decoder layer is gathered by itself when it runs, what is around them (embeddings, head) as one more part.
    A model on the CPU moves to the mesh's devices layer by layer, so that no device ever holds more than its part.
    Banks are made before: they copy the experts' values from whole tensors.
    """
    from torch.distributed.fsdp import fully_shard

    from harness.training.cut import layers_from

    for layer in layers_from(moe, 0):
        fully_shard(layer, mesh=mesh)
    fully_shard(moe.model, mesh=mesh)
