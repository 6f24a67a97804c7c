"""`harness compare`: two models, or the variants of two finished runs, on the same prompts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base.errors import BadInputError
from harness.cli.options import takes_settings
from harness.cli.pipeline import AsJson, ConfigFile, DryRun, Quiet, run_with, show_summary
from harness.config import HOW, SELECTION, TRAINING

_option = partial(typer.Option, rich_help_panel=HOW)
_LEFT_OUT = (SELECTION, TRAINING, "model", "intervention", "baselines", "draws", "save_model")


def _compare(
    base: Annotated[str, typer.Argument(help="A model: checkpoint folder, hub id, demo; or RUN@VARIANT.")],
    variant: Annotated[
        str,
        typer.Argument(help="Another model, or the folder of a delta or adapter of BASE; or RUN@VARIANT."),
    ],
    output: Annotated[
        Path | None, _option("--output", "-o", help="Run folder. [runs/BASE-vs-VARIANT-seedN]")
    ] = None,
    config: ConfigFile = None,
    set_: Annotated[
        list[str] | None,
        _option("--set", help="Any setting, such as margins.capability=0.01; may be repeated."),
    ] = None,
    *,
    flags: dict[str, Any],
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Compare two models, or two variants that have answered already.

    Args:
        base: what the other is compared with.
        variant: the other.
        output: the run folder.
        config: a file with settings.
        set_: assignments of settings.
        flags: settings that have an option, those that were given, by dotted name.
        dry_run: print an estimate only.
        as_json: print JSON.
        quiet: show no progress.
    """
    from harness.pipeline.compare_runs import (
        both_answered,
        compare_runs,
        default_output,
        settings_to_compare,
    )

    finished = both_answered(base, variant)
    if finished is not None:
        if flags or config or set_ or dry_run:
            raise BadInputError(
                "two finished runs are compared as they were made: only --output, --json and --quiet go with them"
            )
        target = output or default_output(*finished)
        show_summary(compare_runs(*finished, target), target, as_json, quiet)
        return 0
    given = flags | settings_to_compare(base, variant)
    return run_with("run", given, config, set_ or [], output, dry_run, as_json, quiet)


command = takes_settings(_compare, but=_LEFT_OUT)
