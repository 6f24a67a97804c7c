"""`harness import`: answers that another program generated, as a run; scores of lm-eval, as a run's capability."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import BadInputError
from harness.cli.pipeline import show_summary
from harness.cli.shared import Json

_Kind = Annotated[list[str] | None, typer.Option()]


def import_(
    logs: Annotated[list[str], typer.Argument(metavar="LOG...")],
    output: Annotated[Path, typer.Option("--output", "-o")],
    judge: Annotated[str | None, typer.Option()] = None,
    harmful: _Kind = None,
    benign: _Kind = None,
    as_json: Json = False,
) -> None:
    """Make a run of inspect_ai's logs, or give a finished run the scores of lm-eval; no model is needed.

    Args:
        logs: .eval files, or folders of them; NAME=FILE names the variant, and the first one's model is base. Or
            NAME=results_TIME.json of lm-eval, with its samples beside it.
        output: Run folder: a new or empty one for logs, that of a finished run for lm-eval.
        judge: Labels the answers; see `harness judges list`. [that of the exported run, or builtin]
        harmful: A task of the logs whose prompts are harmful; may be repeated. Tasks of the harness need none.
        benign: The same for harmless prompts.
        as_json: Print the result as JSON.
    """
    from harness.data.task import Kind
    from harness.inspect.imported import import_logs
    from harness.pipeline.import_capability import are_saved_results, import_capability

    if are_saved_results(logs):
        if judge or harmful or benign:
            raise BadInputError(
                "--judge, --harmful and --benign are for logs of answers: lm-eval's results are scores"
            )
        show_summary(import_capability(logs, output), output, as_json)
        return
    both = set(harmful or []) & set(benign or [])
    if both:
        raise BadInputError(f"task '{min(both)}': expected --harmful or --benign, found both")
    kinds: dict[str, Kind] = {
        **dict.fromkeys(harmful or [], "harmful"),
        **dict.fromkeys(benign or [], "benign"),
    }
    show_summary(import_logs(logs, output, judge=judge, kinds=kinds), output, as_json)
