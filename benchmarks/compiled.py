"""torch.compile where it pays: attention and norms, many small operations each, are what a step's host time goes to.

The experts' products are left alone. They are large, their sizes change with the routing, and the bank's own code asks
nothing of the device that a compiler could take away.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from harness.training.checkpointing import layers_from

if TYPE_CHECKING:
    from harness.models.moe import MoEModel


@contextmanager
def compiled_parts(moe: MoEModel, backend: str = "inductor") -> Iterator[None]:
    """Compile the attention and the norms of every layer inside the block.

    The first steps are slow, and another length of batch may compile once more. Results differ by rounding. What was
    compiled is kept by torch for the next block.

    Args:
        moe: the model.
        backend: of torch.compile.
    """
    parts = [
        part
        for layer in layers_from(moe, 0)
        for name, part in layer.named_children()
        if name == "self_attn" or "norm" in name
    ]
    try:
        for part in parts:
            # Its forward, not the module: torch keeps what it compiled by the function's code, and all modules share
            # the one that calls forward, whose few places would soon be taken.
            part.__dict__["forward"] = torch.compile(part.forward, backend=backend)
        yield
    finally:
        for part in parts:
            part.__dict__.pop("forward", None)
