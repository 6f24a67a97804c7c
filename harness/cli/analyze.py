"""`harness analyze`: figures of a run's experts."""

from __future__ import annotations

from pathlib import Path

import typer

from harness.cli.shared import Json, Output, print_json


def analyze(
    run: Path,
    output: Output = None,
    sample: list[str] | None = None,
    phase: str | None = None,
    as_json: Json = False,
) -> None:
    """Draw what a run says about its experts: heat map, layers, load balance, agreement, co-activation, tokens.

    Args:
        run: The folder of a run that has selected experts.
        output: Folder for the figures. [RUN/figures]
        sample: TASK/ID of a captured prompt to colour token by token; may be repeated.
        phase: prompt, generation, all, decision, reasoning or answer. [the selection's]
        as_json: Print the result as JSON.
    """
    from harness.analysis.figures.page import require_matplotlib

    require_matplotlib()
    from harness.analysis.analyze import analyze as compute
    from harness.analysis.analyze import write
    from harness.base.progress import say
    from harness.models.load import ModelRef, load_tokenizer, quiet_transformers
    from harness.runs.layout import Layout

    if sample:
        quiet_transformers()
    analyses = compute(run, sample or [], phase, lambda folder: load_tokenizer(ModelRef(folder.name, folder)))
    for name, reason in analyses.skipped.items():
        say(f"{name} is left out: {reason}")
    figures = write(analyses, output or Layout(run).figures)
    if as_json:
        print_json(analyses.to_json(figures))
        return
    for path in figures:
        typer.echo(path)
    if (agreement := analyses.agreement) is not None:
        rank = "none" if agreement.spearman is None else f"{agreement.spearman:.2f}"
        typer.echo(
            f"prompt and answer scores: Spearman {rank}, top {agreement.k} share {agreement.overlap} "
            f"(by chance {agreement.by_chance:.1f})"
        )
    for found in analyses.detectors:
        routed, words, apart = (
            f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})"
            for each in (found.routing, found.words, found.difference)
        )
        typer.echo(
            f"harmful or benign, held out by {found.held_out}: area under the curve {routed} by routing, {words} by "
            f"the prompt's words, difference {apart}"
        )
