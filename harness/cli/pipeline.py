"""`harness run`, and its steps one at a time: `capture`, `select`, `train`, `evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.base.errors import BadInputError, nearest
from harness.cli.options import takes_settings
from harness.cli.shared import print_json
from harness.config import HOW

if TYPE_CHECKING:
    from harness.runs.summary import Summary

_option = partial(typer.Option, rich_help_panel=HOW)
ConfigFile = Annotated[Path | None, _option("--config", help="YAML file with settings.")]
DryRun = Annotated[bool, _option("--dry-run", help="Print what would run, with estimates, and stop.")]
AsJson = Annotated[bool, _option("--json", help="Print the result as JSON.")]

Quiet = Annotated[
    bool, _option("--quiet", "-q", help="Show no progress, and of the result its headline and path alone.")
]


def _of_a_step(context: typer.Context, folder: Path | None) -> Path | None:
    """Take a run folder as an argument where there is one already: `run` itself makes it."""
    if folder is None:
        return None
    if context.info_name == "run":
        from harness.config import PRESETS

        is_model = (PRESETS / f"{folder.name}.yaml").is_file() or (folder / "config.json").is_file()
        hint = f"did you mean --model {folder}?" if is_model else "name the run folder with --output"
        raise typer.BadParameter(f"unexpected '{folder}': {hint}")
    return folder


Folder = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="Run folder, the same as --output.", callback=_of_a_step, hidden=True),
]
Output = Annotated[Path | None, _option("--output", "-o", help="Run folder. [runs/MODEL-INTERVENTION-seedN]")]
Set = Annotated[
    list[str] | None, _option("--set", help="Any setting, such as selection.top_k=20; may be repeated.")
]


def one_folder(folder: Path | None, output: Path | None) -> Path | None:
    """Return the run folder, which an argument or --output names.

    Raises:
        BadInputError: both do, and differ.
    """
    if folder is not None and output not in (None, folder):
        raise BadInputError(f"two run folders are named, {folder} and --output {output}: expected one")
    return output or folder


def step(
    context: typer.Context,
    folder: Folder = None,
    output: Output = None,
    config: ConfigFile = None,
    set_: Set = None,
    *,
    flags: dict[str, Any],
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> int:
    """Do `run` or one of its steps, by the name that the command was called by.

    Args:
        context: says that name.
        folder: an earlier run, for a step.
        output: the run folder.
        config: a file with settings.
        set_: assignments of settings.
        flags: settings that have an option, those that were given, by dotted name.
        dry_run: print an estimate only.
        as_json: print JSON.
        quiet: show no progress.
    """
    from harness.runs.layout import Layout

    output = one_folder(folder, output)
    if folder is not None and context.info_name != "capture" and not folder.is_dir():
        beside = [path.name for path in folder.parent.glob("*/") if Layout(path).is_run()]
        raise BadInputError(f"no run folder '{folder}', {nearest(folder.name, beside)}")
    judge = flags.get("judge")
    evaluates = context.info_name == "evaluate"
    if evaluates and judge is not None and output is not None and Layout(output).summary.is_file():
        of_judges = all(each.startswith("judge_settings.") for each in set_ or [])
        if not flags.keys() <= {"judge", "card", "include"} or config or not of_judges or dry_run:
            raise BadInputError(
                f"{output} is a finished run: --judge adds a judge to it and takes no other setting but --card, "
                "--include and judge_settings"
            )
        from harness.config import make_config
        from harness.pipeline.judge import judge_again

        given = make_config(flags, None, set_ or [])
        summary = judge_again(output, given.judges, given.card, given.include, given.judge_settings)
        show_summary(summary, output, as_json, quiet)
        return 0
    return run_with(str(context.info_name), flags, config, set_ or [], output, dry_run, as_json, quiet)


command = takes_settings(step)


def run_with(
    command: str,
    flags: dict[str, Any],
    config_file: Path | None,
    assignments: list[str],
    output: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool = False,
) -> int:
    """Do a command of the main path with these settings.

    Args:
        command: run, or a step of it.
        flags: settings by dotted name.
        config_file: a file with settings.
        assignments: of settings.
        output: the run folder; by default one under runs/.
        dry_run: print an estimate only.
        as_json: print JSON.
        quiet: show no progress.
    """
    from harness.config import make_config
    from harness.models.load import quiet_transformers
    from harness.pipeline import pipeline, recorded
    from harness.pipeline.estimate import estimate, print_estimate
    from harness.pipeline.plan import make_plan

    quiet_transformers()
    # A single step takes the settings of the run folder that it is pointed at.
    kept = pipeline.kept_config(output) if command != "run" and output is not None else None
    config = make_config(flags, config_file, assignments, kept)
    target = output or pipeline.default_output(config)
    if command not in ("run", "capture") and recorded.is_recorded(target):
        if command != "select" or dry_run:
            recorded.refuse_to_ask(target, "estimate" if dry_run else command)
        show_summary(recorded.select_recorded(target, config), target, as_json, quiet)
        return 0
    plan = make_plan(config, command)
    if dry_run:
        figures = estimate(plan, target)
        if as_json:
            print_json(figures)
        else:
            print_estimate(figures)
        return 0
    session = pipeline.start(plan, target, resume=command not in ("run", "capture"))
    summary = pipeline.run(session, "evaluate" if command == "run" else command, quiet)
    if summary is not None:
        show_summary(summary, target, as_json, quiet)
    elif as_json:
        print_json({"run": str(target)})
    else:
        typer.echo(f"{command}: done, see {target}")
    return 0


def show_summary(summary: Summary, target: Path, as_json: bool, quiet: bool = False) -> None:
    """Print what a run came to, for people or as JSON; quietly, its headline and path alone."""
    if as_json:
        print_json(summary.to_json())
        return
    from harness.runs.layout import Layout

    if quiet:
        from harness.report.finding import headline

        typer.echo(headline(summary))
    else:
        from harness.report.terminal import print_report

        print_report(summary)
    typer.echo(f"{'' if quiet else chr(10)}Report: {Layout(target).html}")
