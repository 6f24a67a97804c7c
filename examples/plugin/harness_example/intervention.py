"""A kind of intervention: what the experts say counts for less."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field

from harness.interventions.base import Intervention, Prepared
from harness.models.moe import MoEModel


class Damp(Intervention):
    """The experts' outputs are multiplied by a factor."""

    factor: float = Field(ge=0, le=1)
    """What they are multiplied by."""

    @contextmanager
    def in_memory(self, moe: MoEModel, made: Prepared) -> Iterator[None]:
        """Damp the experts inside the block."""
        hooks = [
            layer.experts.register_forward_hook(lambda module, args, output: output * self.factor)
            for layer in moe.layers
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
