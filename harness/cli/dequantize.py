"""`harness models dequantize`: a copy of a quantised checkpoint that can be trained."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.shared import Json, Trust, print_json


def dequantize(
    source: Annotated[str, typer.Argument(metavar="SRC")],
    out: Path,
    as_json: Json = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write a copy of an MXFP4 or block FP8 checkpoint in bfloat16, which can be trained.

    One expert is in memory at a time. Every other file is kept, and the logits of the copy are compared with the
    original's where memory holds the model.

    Args:
        source: The quantised checkpoint: a folder or a hub id.
        out: Folder of the copy, new or empty.
        as_json: Print the result as JSON.
        trust_remote_code: Let the checkpoint's own Python code run.
    """
    from harness.checkpoints.dequantize import dequantize_checkpoint
    from harness.models.load import quiet_transformers, resolve_model

    quiet_transformers()
    result = dequantize_checkpoint(resolve_model(source, trust_remote_code), out)
    likeness = result.likeness
    if as_json:
        print_json(
            {
                "out": str(out),
                "method": result.quantization.method,
                "decoded_tensors": result.decoded,
                "copied_tensors": result.copied,
                "bytes_before": result.bytes_before,
                "bytes_after": result.bytes_after,
                "logits": None if isinstance(likeness, str) else asdict(likeness),
                "why_not_compared": likeness if isinstance(likeness, str) else None,
            }
        )
        return
    typer.echo(
        f"{out}: {result.decoded:,} tensors in {result.quantization.method} decoded to bfloat16, {result.copied:,} "
        f"copied; {result.bytes_before:,} bytes became {result.bytes_after:,}"
    )
    typer.echo(f"its logits were not compared: {likeness}" if isinstance(likeness, str) else str(likeness))
