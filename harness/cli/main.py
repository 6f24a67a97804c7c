"""`harness`: the command line. Each command parses, calls and prints; nothing heavy is imported before that."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from harness.base.errors import HarnessError
from harness.base.visible import visible
from harness.cli.lazy import HELP_NAMES, LOOKS, LazyGroup, Listed

# These may stand anywhere on the line.
_DEBUG, _NO_COLOR = "--debug", "--no-color"
# typer's own lookup of the shell ignores one that is named, and prints nothing where it finds none.
_COMPLETION = ("--install-completion", "--show-completion")
_PATH = re.compile(r"(--[\w-]+=|)(~(?:/.*)?)", re.DOTALL)
# What typer makes of Ctrl-C.
_INTERRUPTED = 130

_STEP = "harness.cli.pipeline:command"


class _Commands(LazyGroup):
    listed: ClassVar = {
        "run": Listed(
            _STEP,
            "The main job: find the unsafe experts, fine-tune only those, evaluate beside baselines, report.",
        ),
        "capture": Listed(
            "harness.cli.capture:command",
            "Answer the identify prompts and count which experts they use, or read what another engine recorded.",
        ),
        "select": Listed(_STEP, "Score the experts and select the unsafe ones (captures first, if need be)."),
        "train": Listed(
            _STEP, "Fine-tune the experts of each trained variant (captures and selects first, if need be)."
        ),
        "evaluate": Listed(
            _STEP,
            "Answer the test prompts, judge, run lm-eval, summarise and report (does what is missing first).",
        ),
        "compare": Listed(
            "harness.cli.compare:command",
            "Compare two models on the same prompts, or two finished runs' variants: no selection, no training.",
        ),
        "report": Listed(
            "harness.cli.report:report",
            "Print a run (the newest, if none is named) and write its report anew, or one leaderboard of several runs.",
        ),
        "measure": Listed(
            "harness.cli.measure:measure",
            "Make a run's summary and reports again from its answers, verdicts and scores, without model or data.",
        ),
        "sweep": Listed(
            "harness.cli.sweep:sweep",
            "Do a table of runs (models x interventions x selections x objectives x seeds), and one leaderboard of "
            "all.",
        ),
        "check": Listed(
            "harness.cli.check:check",
            "Decide gates on a run: exit code 0 if all pass, 3 if one fails, 4 if one is inconclusive.",
        ),
        "analyze": Listed(
            "harness.cli.analyze:analyze",
            "Draw what a run says about its experts: heat map, layers, load balance, agreement, co-activation, "
            "tokens.",
        ),
        "experts": Listed(
            "harness.cli.experts:experts", "Experts of a run: which of the trained ones carry the effect."
        ),
        "export": Listed(
            "harness.cli.export:export",
            "Write routing, risk differences and training conversations for other programs.",
        ),
        "import": Listed(
            "harness.cli.import_:import_",
            "Make a run of inspect_ai's logs, or give a finished run the scores of lm-eval; no model is needed.",
        ),
        "tasks": Listed("harness.cli.content:tasks", "Prompt tasks and capability tasks."),
        "baselines": Listed("harness.cli.content:baselines", "Interventions and baselines."),
        "judges": Listed("harness.cli.judges:judges", "Judges that label answers."),
        "models": Listed(
            "harness.cli.models:app",
            "Models: those that need no hub, what is in one, making one, and expert deltas.",
        ),
        "runs": Listed("harness.cli.runs:runs", "Run folders."),
        "doctor": Listed(
            "harness.cli.doctor:doctor",
            "Say what is at hand here, what a model wants (thinking, memory, training), and the command to run it.",
        ),
        "plugins": Listed("harness.cli.plugins:plugins", "What other installed packages add."),
    }


app = typer.Typer(
    name="harness",
    cls=_Commands,
    help="Find, fine-tune and honestly evaluate the unsafe experts of Mixture-of-Experts language models.",
    no_args_is_help=True,
    context_settings={"help_option_names": HELP_NAMES},
    **LOOKS | {"add_completion": True},
)


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
    no_color: Annotated[
        bool, typer.Option(_NO_COLOR, help="Use no colours, as where NO_COLOR is set.")
    ] = False,
) -> None:
    """Find, fine-tune and honestly evaluate the unsafe experts of Mixture-of-Experts language models."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Errors become one line on stderr: exit code 1 for a failed run, 2 for bad input. `--debug`, which shows the
    traceback as well, and `--no-color` may stand anywhere.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without a character for what is said ends no command.
            stream.reconfigure(errors="replace")
    arguments = list(map(_at_home, sys.argv[1:] if arguments is None else arguments))
    debug = _DEBUG in arguments
    try:
        given = [argument for argument in arguments if argument not in (_DEBUG, _NO_COLOR)]
        if given and given[0] in _COMPLETION:
            from harness.cli.completion import complete

            complete(given[0], given[1:])
            return 0
        with _colours(_NO_COLOR not in arguments):
            result = app(given, prog_name="harness", standalone_mode=False)
    except (HarnessError, typer.TyperException, OSError) as error:
        if debug:
            raise
        _say_why(error.format_message() if isinstance(error, typer.TyperException) else _in_words(error))
        # A full disk, a folder without permission: nothing a traceback would explain better.
        return 1 if isinstance(error, OSError) else error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        result = _INTERRUPTED
    except Exception as error:
        from harness.base.plugins import error_in_plugin

        line = None if debug else error_in_plugin(error)
        if line is None:
            raise
        _say_why(line)
        return 1
    if result == _INTERRUPTED:
        typer.echo("harness: stopped; run the same command again to continue", err=True)
        return 1
    return result if isinstance(result, int) else 0


def _say_why(text: str) -> None:
    typer.echo(f"harness: {visible(' '.join(text.split()))}", err=True)


@contextmanager
def _colours(wanted: bool) -> Iterator[None]:
    """Let everything inside the block, programs that are started too, use no colours where none are wanted."""
    before = os.environ.get("NO_COLOR")
    if not wanted:
        os.environ["NO_COLOR"] = "1"
    try:
        yield
    finally:
        if not wanted and before is None:
            del os.environ["NO_COLOR"]


def _in_words(error: HarnessError | OSError) -> str:
    from harness.base.files import full_disk, is_full_disk

    if isinstance(error, OSError) and error.filename is not None and is_full_disk(error):
        return str(full_disk(Path(os.fsdecode(error.filename))))
    return str(error)


def _at_home(argument: str) -> str:
    """Return an argument with the home folder in place of `~`, which no shell puts into --output=~/runs."""
    match = _PATH.fullmatch(argument)
    return argument if match is None else match[1] + str(Path(match[2]).expanduser())


def entry() -> None:
    """Console entry point."""
    sys.exit(main())
