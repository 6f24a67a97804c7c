"""`harness models apply|diff`: deltas and the checkpoints that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.shared import Json, Trust, print_json

if TYPE_CHECKING:
    from collections.abc import Collection


def apply(
    model: str,
    delta: str,
    out: Path,
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
    as_json: Json = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write the checkpoint of a model with a delta's experts in it.

    The model must be the one that the delta was trained from, by the sha256 of its weights. Its files are copied and
    the experts overwritten in the copy, one at a time; a README.md of its own says what was done.

    Args:
        model: The delta's base: demo, smol-moe, a folder or a hub id.
        delta: Folder with delta.safetensors and delta.json, such as RUN/variants/NAME; or hf://ORG/REPO[@REVISION].
        out: Folder of the new checkpoint; new or empty.
        dry_run: Check model and delta, and write nothing.
        as_json: Print the result as JSON.
        trust_remote_code: Let the checkpoint's own Python code run where transformers has no class for it.
    """
    from harness.checkpoints.apply import apply_delta
    from harness.checkpoints.hub import delta_from
    from harness.models.load import quiet_transformers, resolve_model

    quiet_transformers()
    folder = delta_from(delta)
    ref = resolve_model(model, trust_remote_code)
    result = apply_delta(ref, folder, out, dry_run)
    merged = result.merged
    if as_json:
        facts: dict[str, Any] = {
            "base": result.base,
            "experts": [list(expert) for expert in result.experts],
            "out": None if merged is None else str(out),
            "left_out": dict(result.left_out),
        }
        for name in ("method", "tensors", "changed_bytes", "total_bytes") if merged is not None else ():
            facts[name] = getattr(merged, name)
        print_json(facts)
    elif merged is None:
        typer.echo(f"{_count(result.experts)} of {ref.name} would be replaced; nothing was written")
    else:
        typer.echo(
            f"{out}: {_count(result.experts)} of {ref.name} replaced, "
            f"{merged.changed_bytes:,} of {merged.total_bytes:,} bytes in {merged.tensors} tensors"
        )
    if not as_json:
        for name, reason in result.left_out.items():
            typer.echo(f"left out {name}: {reason}")


def adapter(
    model: str,
    delta: Path,
    out: Path,
    rank: Annotated[int, typer.Option("--rank", min=1)] = 8,
    as_json: Json = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write a low-rank delta as a PEFT adapter of its base.

    The delta must have been trained with `training.lora_rank` of at most the rank. Needs PEFT.

    Args:
        model: The delta's base: demo, smol-moe, a folder or a hub id.
        delta: Folder with delta.safetensors and delta.json, such as RUN/variants/NAME.
        out: Folder of the adapter; new or empty.
        rank: Rank of the adapter.
        as_json: Print the result as JSON.
        trust_remote_code: Let the checkpoint's own Python code run where transformers has no class for it.
    """
    from harness.checkpoints.adapter_of_delta import write_adapter
    from harness.models.load import quiet_transformers, resolve_model

    quiet_transformers()
    ref = resolve_model(model, trust_remote_code)
    experts = write_adapter(ref, delta, out, rank)
    if as_json:
        listed = [list(expert) for expert in experts]
        print_json({"base": ref.name, "out": str(out), "rank": rank, "experts": listed})
        return
    typer.echo(f"{out}: an adapter of {ref.name} that changes {_count(experts)}")


def diff(
    first: Annotated[str, typer.Argument(metavar="A")],
    second: Annotated[str, typer.Argument(metavar="B")],
    delta: Path | None = None,
    as_json: Json = False,
    trust_remote_code: Trust = False,
) -> None:
    """Name the experts, and the other tensors, in which two checkpoints differ, byte for byte.

    Args:
        first: demo, smol-moe, a folder or a hub id.
        second: The other checkpoint.
        delta: Refuse unless B is A with the delta of this folder, to the last bit.
        as_json: Print the result as JSON.
        trust_remote_code: Let the checkpoint's own Python code run where transformers has no class for it.
    """
    from harness.checkpoints.is_delta import check_is_delta
    from harness.checkpoints.proof import compare_checkpoints
    from harness.models.load import quiet_transformers, resolve_model

    quiet_transformers()
    one, other = (resolve_model(name, trust_remote_code) for name in (first, second))
    if delta is not None:
        check_is_delta(one, other, delta)
    difference = compare_checkpoints(one.path, other.path)
    experts: list[dict[str, Any]] = [
        {"layer": layer, "expert": expert, "tensors": list(names)}
        for (layer, expert), names in sorted(difference.experts.items())
    ]
    if as_json:
        print_json(
            {
                "experts": experts,
                "others": list(difference.others),
                "compared": difference.compared,
                "converted": difference.converted,
            }
        )
        return
    for each in experts:
        typer.echo(f"layer {each['layer']} expert {each['expert']}: {', '.join(each['tensors'])}")
    for line in difference.others:
        typer.echo(line)
    how = ", after transformers wrote both with the names in memory" if difference.converted else ""
    typer.echo(
        f"{_count(experts)} and {len(difference.others)} other tensors differ; "
        f"{difference.compared} compared{how}"
    )
    if delta is not None:
        typer.echo(f"{other.name} is {one.name} with the delta of {delta}, to the last bit")


def _count(experts: Collection[object]) -> str:
    return f"{len(experts)} expert{'' if len(experts) == 1 else 's'}"
