"""Training beyond one device: frozen weights sharded over processes, the bank whole on each.

torch's `fully_shard` (FSDP2) splits each weight of the layers over the processes of a device mesh and gathers a layer's
when it runs, so that all devices together hold them once. What is trained is small, and every process keeps all of it:
each takes a share of every batch, gradients are summed, and all take the same step. The loss is divided by the answer
tokens of all processes together, so their number changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed
from torch.distributed.tensor import DTensor, distribute_tensor

from harness.training.examples import Example

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from harness.models.load import LoadedModel, ModelRef
    from harness.models.moe import MoEModel


@dataclass(frozen=True)
class Ranks:
    """Rank and world size; a single process by default."""

    rank: int = 0
    size: int = 1

    def share(self, examples: Sequence[Example]) -> list[Example]:
        """Return this process's part of a batch.

        All run the same forward passes, since each gathers weights from all. One without an example of its own runs
        the first one's prompt, with no answer to learn.
        """
        own = list(examples[self.rank :: self.size])
        return own or [replace(examples[0], answer=())]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size == 1:
            return values
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

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
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size())
    yield ranks, init_device_mesh(device.type, (ranks.size,))
    # Not after an error: the others may be waiting for this one, until torchrun ends them.
    distributed.destroy_process_group()


def shard(moe: MoEModel, mesh: DeviceMesh) -> None:
    """Split a model's decoder layers over the processes of a mesh, in place; their parameters become DTensors.

    Each layer is gathered by itself when it runs. Embeddings and head stay whole on every process: the loss runs the
    head as often as a process has answer tokens, which must not be a matter of all processes.
    """
    from torch.distributed.fsdp import fully_shard

    from harness.training.checkpointing import layers_from

    layers = layers_from(moe, 0)
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    outside = {parameter for parameter in moe.model.parameters() if not isinstance(parameter, DTensor)}
    fully_shard(moe.model, mesh=mesh, ignored_params=outside)


def load_sharded(
    ref: ModelRef,
    dtype: str,
    device: torch.device,
    ranks: Ranks,
    mesh: DeviceMesh,
) -> LoadedModel:
    """Load a model that may be too large for one device: each process holds its part of every weight.

    Rank 0 reads the checkpoint into its host memory and hands the tensors out one by one; no device ever holds more
    than its parts and one whole tensor.

    Args:
        ref: the model.
        dtype: as `load_model` takes it.
        device: of this process.
        ranks: rank and world size.
        mesh: of all processes.
    """
    from harness.models.load import LoadedModel, load_model, load_tokenizer, outline_model

    source = load_model(ref, dtype, "cpu") if ranks.rank == 0 else None
    moe = outline_model(ref)
    whole = dict(_tensors(source.moe)) if source else {}
    sent: list[Any] = [
        {name: (value.shape, value.dtype) for name, value in whole.items()},
        source.checkpoint_dtype if source else None,
    ]
    distributed.broadcast_object_list(sent, device=device)
    shapes, checkpoint_dtype = sent
    for name, parameter in moe.model.named_parameters():
        parameter.data = parameter.data.to(shapes[name][1])
    moe.model.eval().requires_grad_(False)
    shard(moe, mesh)
    moe.model.to_empty(device=device)
    moe.model.tie_weights()  # an embedding that is the head as well was given a tensor twice
    with torch.no_grad():
        for name, target in _tensors(moe):
            shape, kind = shapes[name]
            tensor = whole[name].to(device) if source else torch.empty(shape, dtype=kind, device=device)
            if isinstance(target, DTensor):
                target.to_local().copy_(distribute_tensor(tensor, mesh, target.placements).to_local())
            else:
                distributed.broadcast(tensor.contiguous(), 0)
                target.copy_(tensor)
    return LoadedModel(ref, moe, load_tokenizer(ref), device, checkpoint_dtype)


def _tensors(moe: MoEModel) -> list[tuple[str, torch.Tensor]]:
    """Return parameters and buffers, also those that a checkpoint does not hold (rotary frequencies)."""
    return [*moe.model.named_parameters(), *moe.model.named_buffers()]
