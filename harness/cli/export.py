"""`harness export`: a run's findings as files for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run that has selected experts.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    form: Annotated[
        str, typer.Option("--format", help="parquet: Parquet and JSONL. guide: the original guide's pickles.")
    ] = "parquet",
    phase: Annotated[
        str,
        typer.Option("--phase", help="Tokens of the risk difference: prompt, generation, all or decision."),
    ] = "all",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files of the same names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write routing, risk differences and training conversations for other programs."""
    from harness.base.progress import say
    from harness.export.export import export as write

    written = write(run, folder, form, phase, overwrite=force)
    for name, reason in written.left_out.items():
        say(f"{name} is left out: {reason}")
    if as_json:
        result = {
            "run": str(run),
            "format": form,
            "files": [str(path) for path in written.files],
            "left_out": written.left_out,
        }
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    for path in written.files:
        typer.echo(path)
