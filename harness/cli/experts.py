"""`harness experts carry`: which trained experts carry the effect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.lazy import LOOKS
from harness.cli.shared import Json, print_fields, print_json

experts = typer.Typer(no_args_is_help=True, **LOOKS)


@experts.callback()
def _group() -> None:
    """Experts of a run: which of the trained ones carry the effect."""


@experts.command()
def carry(
    run: Path,
    variant: Annotated[str | None, typer.Option("--variant", show_default=False)] = None,
    orders: Annotated[int, typer.Option("--orders", min=1)] = 5,
    prompts: Annotated[int, typer.Option("--prompts", min=2)] = 24,
    steps: Annotated[int, typer.Option("--steps", min=1)] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
    as_json: Json = False,
) -> None:
    """Put trained experts back to base one after another, and see when refusal falls.

    By rank and in random orders, without training, on a declared subset of the test prompts. Answers are kept, so that
    the same command goes on where it was stopped. The run's report shows the result.

    Args:
        run: The folder of a finished run.
        variant: Whose experts. [the run's intervention]
        orders: How many random orders, beside that by rank.
        prompts: How many harmful and how many benign prompts are asked at each step.
        steps: At most so many steps from no expert put back to all.
        dry_run: Print what would be asked, and stop.
        as_json: Print the result as JSON.
    """
    from harness.models.load import quiet_transformers
    from harness.pipeline.carry import Asked, estimate, open_job
    from harness.pipeline.carry import carry as put_back
    from harness.report.carry import in_words
    from harness.runs.run import read_run

    quiet_transformers()
    job = open_job(run, variant, Asked(orders, prompts, steps))
    if dry_run:
        print_fields(estimate(job), as_json)
        return
    put_back(job)
    found = read_run(run).carry(job.variant)
    assert found is not None  # written just now
    if as_json:
        print_json({"run": str(run), "variant": job.variant, **found.model_dump(mode="json")})
        return
    for line in in_words(job.variant, found):
        typer.echo(line)
    typer.echo(f"\nReport: {job.folder.layout.html}")
