"""Merged checkpoints: the base with a delta's experts, as a folder that transformers and vLLM load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.training.delta import ExpertDelta


def write_merged(ref: ModelRef, delta: ExpertDelta, out: Path, trust_remote_code: bool = False) -> None:
    """Write the whole merged checkpoint with its tokenizer.

    The base is read anew, in its own dtype: what memory holds for evaluation plays no part.
    """
    from harness.models.load import load_model
    from harness.training.delta import write_delta_into

    loaded = load_model(ref, dtype="auto", device="cpu", trust_remote_code=trust_remote_code)
    write_delta_into(loaded.moe, delta)
    loaded.moe.model.save_pretrained(out)
    loaded.tokenizer.save_pretrained(out)
