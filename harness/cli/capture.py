"""`harness capture`: routing of the model's answers, or routing that another engine recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.base.errors import BadInputError
from harness.cli.options import takes_settings
from harness.cli.pipeline import AsJson, ConfigFile, DryRun, Folder, Output, Quiet, Set, one_folder, step
from harness.cli.shared import print_json
from harness.config import SELECTION


def _capture(
    context: typer.Context,
    folder: Folder = None,
    from_: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            rich_help_panel=SELECTION,
            help="JSONL of routing recorded by vLLM or SGLang, in place of asking the model; may be repeated.",
        ),
    ] = None,
    output: Output = None,
    config: ConfigFile = None,
    set_: Set = None,
    *,
    flags: dict[str, Any],
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Capture routing, or read what was recorded.

    Args:
        context: says the command's name.
        folder: an earlier run.
        from_: files of recorded routing.
        output: the run folder.
        config: a file with settings.
        set_: assignments of settings.
        flags: settings that have an option, those that were given, by dotted name.
        dry_run: print an estimate only.
        as_json: print JSON.
        quiet: show no progress.
    """
    if not from_:
        return step(
            context,
            folder,
            output,
            config,
            set_,
            flags=flags,
            dry_run=dry_run,
            as_json=as_json,
            quiet=quiet,
        )
    from harness.config import make_config
    from harness.models.load import quiet_transformers
    from harness.pipeline.pipeline import default_output
    from harness.pipeline.recorded import capture_recorded

    if dry_run or "tasks" in flags:
        raise BadInputError(
            "--from: the files say which tasks there are, and nothing is asked: expected neither --tasks nor --dry-run"
        )
    quiet_transformers()
    settings = make_config(flags, config, set_ or [])
    target = one_folder(folder, output) or default_output(settings)
    capture_recorded(from_, settings, target)
    if as_json:
        print_json({"run": str(target)})
    else:
        typer.echo(f"capture: done, see {target}")
    return 0


command = takes_settings(_capture)
