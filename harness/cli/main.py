"""`harness`: the command line. Each command parses, calls and prints; nothing heavy is imported before that."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from harness.base.errors import HarnessError
from harness.cli import (
    analyze,
    check,
    content,
    export,
    judges,
    measure,
    models,
    pipeline,
    report,
    runs,
    sweep,
)

_DEBUG = "--debug"
# What typer makes of Ctrl-C.
_INTERRUPTED = 130

app = typer.Typer(
    name="harness",
    help="Find, fine-tune and honestly evaluate the unsafe experts of Mixture-of-Experts language models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
pipeline.add_commands(app)
app.command("report")(report.report)
app.command("measure")(measure.measure)
app.command("sweep")(sweep.sweep)
app.command("check")(check.check)
app.command("analyze")(analyze.analyze)
app.command("export")(export.export)
app.add_typer(content.tasks, name="tasks")
app.add_typer(content.baselines, name="baselines")
app.add_typer(judges.judges, name="judges")
app.add_typer(models.app, name="models")
app.add_typer(runs.runs, name="runs")


def _print_version(value: bool) -> None:
    if value:
        import harness

        typer.echo(harness.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show the traceback of an error.")] = False,
) -> None:
    """Find, fine-tune and honestly evaluate the unsafe experts of Mixture-of-Experts language models."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Errors become one line on stderr: exit code 1 for a failed run, 2 for bad input. `--debug` may stand
    anywhere and shows the traceback as well.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = _DEBUG in arguments
    try:
        result = app([argument for argument in arguments if argument != _DEBUG], standalone_mode=False)
    except (HarnessError, typer.TyperException) as error:
        if debug:
            raise
        text = str(error) if isinstance(error, HarnessError) else error.format_message()
        typer.echo(f"harness: {' '.join(text.split())}", err=True)
        return error.exit_code
    except OSError as error:
        # A full disk, a folder without permission: nothing a traceback would explain better.
        if debug:
            raise
        typer.echo(f"harness: {' '.join(str(error).split())}", err=True)
        return 1
    except (typer.Abort, KeyboardInterrupt):
        result = _INTERRUPTED
    if result == _INTERRUPTED:
        typer.echo("harness: stopped; run the same command again to continue", err=True)
        return 1
    return result if isinstance(result, int) else 0


def entry() -> None:
    """Console entry point."""
    sys.exit(main())
