"""`harness models apply|diff`: deltas and the checkpoints that they make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

_Model = Annotated[str, typer.Argument(help="The delta's base: demo, smol-moe, a folder or a hub id.")]
_Delta = Annotated[
    Path, typer.Argument(help="Folder with delta.safetensors and delta.json, such as RUN/variants/NAME.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Let the checkpoint's own Python code run.")
]


def apply(
    model: _Model,
    delta: _Delta,
    out: Annotated[Path, typer.Argument(help="Folder of the new checkpoint; new or empty.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check model and delta, and write nothing.")
    ] = False,
    as_json: _Json = False,
    trust_remote_code: _Trust = False,
) -> None:
    """Write the checkpoint of a model with a delta's experts in it.

    The model must be the one that the delta was trained from, by the sha256 of its weights. Its files are copied and
    the experts overwritten in the copy, one at a time.
    """
    from harness.checkpoints.apply import apply_delta
    from harness.models.load import quiet_transformers, resolve_model

    quiet_transformers()
    ref = resolve_model(model, trust_remote_code)
    result = apply_delta(ref, delta, out, dry_run)
    merged = result.merged
    if as_json:
        facts: dict[str, Any] = {
            "base": result.base,
            "experts": [list(expert) for expert in result.experts],
            "out": None if merged is None else str(out),
        }
        if merged is not None:
            facts |= {
                "method": merged.method,
                "tensors": merged.tensors,
                "changed_bytes": merged.changed_bytes,
                "total_bytes": merged.total_bytes,
            }
        typer.echo(json.dumps(facts))
    elif merged is None:
        typer.echo(f"{_count(result.experts)} of {ref.name} would be replaced; nothing was written")
    else:
        typer.echo(
            f"{out}: {_count(result.experts)} of {ref.name} replaced, "
            f"{merged.changed_bytes:,} of {merged.total_bytes:,} bytes in {merged.tensors} tensors"
        )


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="demo, smol-moe, a folder or a hub id.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other checkpoint.")],
    delta: Annotated[
        Path | None,
        typer.Option("--delta", help="Refuse unless B is A with the delta of this folder, to the last bit."),
    ] = None,
    as_json: _Json = False,
    trust_remote_code: _Trust = False,
) -> None:
    """Name the experts, and the other tensors, in which two checkpoints differ, byte for byte."""
    from harness.checkpoints.is_delta import check_is_delta
    from harness.checkpoints.proof import compare_checkpoints
    from harness.models.load import quiet_transformers, resolve_model

    quiet_transformers()
    one, other = (resolve_model(name, trust_remote_code) for name in (first, second))
    if delta is not None:
        check_is_delta(one, other, delta)
    found = compare_checkpoints(one.path, other.path)
    experts = sorted(found.experts.items())
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "experts": [
                        {"layer": layer, "expert": expert, "tensors": list(names)}
                        for (layer, expert), names in experts
                    ],
                    "others": list(found.others),
                    "compared": found.compared,
                    "converted": found.converted,
                }
            )
        )
        return
    for (layer, expert), names in experts:
        typer.echo(f"layer {layer} expert {expert}: {', '.join(names)}")
    for line in found.others:
        typer.echo(line)
    how = ", after transformers wrote both with the names in memory" if found.converted else ""
    typer.echo(
        f"{_count(found.experts)} and {len(found.others)} other tensors differ; {found.compared} compared{how}"
    )
    if delta is not None:
        typer.echo(f"{other.name} is {one.name} with the delta of {delta}, to the last bit")


def _count(experts: Iterable[object]) -> str:
    number = len(list(experts))
    return f"{number} expert{'' if number == 1 else 's'}"
