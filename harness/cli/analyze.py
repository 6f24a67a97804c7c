"""`harness analyze`: figures of a run's experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def analyze(
    run: Annotated[Path, typer.Argument(help="The folder of a run that has selected experts.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the figures. [RUN/figures]", show_default=False),
    ] = None,
    sample: Annotated[
        list[str] | None,
        typer.Option(
            "--sample", help="TASK/ID of a captured prompt to colour token by token; may be repeated."
        ),
    ] = None,
    phase: Annotated[
        str | None,
        typer.Option(
            "--phase", help="prompt, generation, all or decision. [the selection's]", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw what a run says about its experts: heat map, layers, load balance, agreement, co-activation, tokens."""
    from harness.analysis.figures.page import require_matplotlib

    require_matplotlib()
    from harness.analysis.analyze import analyze as compute
    from harness.analysis.analyze import write
    from harness.base.progress import say
    from harness.models.load import ModelRef, load_tokenizer, quiet_transformers
    from harness.runs.layout import Layout

    if sample:
        quiet_transformers()
    found = compute(run, sample or [], phase, lambda folder: load_tokenizer(ModelRef(folder.name, folder)))
    for name, reason in found.skipped.items():
        say(f"{name} is left out: {reason}")
    figures = write(found, output or Layout(run).figures)
    result = found.to_json(figures)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))
        return
    for path in figures:
        typer.echo(path)
    if found.agreement is not None:
        agreed = found.agreement
        rank = "none" if agreed.spearman is None else f"{agreed.spearman:.2f}"
        typer.echo(
            f"prompt and answer scores: Spearman {rank}, top {agreed.k} share {agreed.overlap} "
            f"(by chance {agreed.by_chance:.1f})"
        )
