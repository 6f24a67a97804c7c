"""`harness export`: a run's findings as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.shared import Json, print_json


def export(
    run: Path,
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    form: Annotated[str, typer.Option("--format")] = "parquet",
    phase: str = "all",
    force: Annotated[bool, typer.Option("--force")] = False,
    as_json: Json = False,
) -> None:
    """Write routing, risk differences and training conversations for other programs.

    Args:
        run: The folder of a run.
        folder: Where the files go.
        form: parquet: Parquet and JSONL. guide: the original guide's pickles. inspect: logs of inspect_ai, which need
            no selected experts.
        phase: Tokens of the risk difference: prompt, generation, all, decision, reasoning or answer.
        force: Overwrite files of the same names.
        as_json: Print the result as JSON.
    """
    from harness.base.progress import say
    from harness.export.export import export as write

    written = write(run, folder, form, phase, overwrite=force)
    for name, reason in written.left_out.items():
        say(f"{name} is left out: {reason}")
    files = [str(path) for path in written.files]
    if as_json:
        print_json({"run": str(run), "format": form, "files": files, "left_out": written.left_out})
        return
    for path in files:
        typer.echo(path)
