"""An engine: transformers, which answers one prompt at a time, so that nothing is padded."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config import RunConfig
from harness.data.prompts import Prompt
from harness.engines.in_memory import ModelInMemory
from harness.engines.transformers import TransformersEngine, TransformersKind


class OneByOne(TransformersKind):
    """The transformers engine with batches of one."""

    name = "example_one_by_one"

    def open(self, config: RunConfig, model: ModelInMemory, prompts: Sequence[Prompt]) -> TransformersEngine:
        """Return the engine; it loads the model."""
        engine = super().open(config, model, prompts)
        engine.name, engine.batch_size = self.name, 1
        return engine


ONE_BY_ONE = OneByOne()
