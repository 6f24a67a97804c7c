"""`harness check`: gates for CI."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from harness.base.errors import BadInputError
from harness.cli.shared import Json, print_json

_SUMMARY = "GITHUB_STEP_SUMMARY"
_ON_GITHUB = "GITHUB_ACTIONS"
_CHECKOUT = "GITHUB_WORKSPACE"


def check(
    run: Path,
    gates: Annotated[Path, typer.Option()],
    against: str | None = None,
    update: Annotated[str | None, typer.Option(metavar="REFERENCE")] = None,
    allow_regression: Annotated[str | None, typer.Option(metavar="REASON")] = None,
    junit: Path | None = None,
    sarif: Path | None = None,
    markdown: Path | None = None,
    annotations: Literal["github", "none"] | None = None,
    as_json: Json = False,
) -> int:
    """Decide gates on a run: exit code 0 if all pass, 3 if one fails, 4 if one is inconclusive.

    Args:
        run: The folder of a finished run.
        gates: The file that says what must hold (docs/gates.md).
        against: What to compare with: a reference's name or file, or a run folder.
        update: Write this reference from the run, if gates pass.
        allow_regression: Let the reference get worse; keeps why.
        junit: Also write JUnit XML.
        sarif: Also write SARIF.
        markdown: Also write Markdown.
        annotations: Also print what does not pass to stderr, as annotations of the gates file.
            [github in a GitHub workflow, none elsewhere]
        as_json: Print the result as JSON.
    """
    from harness.base.files import write_json, write_text
    from harness.gate.check import check as decide
    from harness.gate.github import github_annotations
    from harness.gate.junit import junit_xml
    from harness.gate.sarif import sarif_log
    from harness.gate.show import markdown as as_markdown
    from harness.gate.show import print_check

    if allow_regression is not None and update is None:
        raise BadInputError("--allow-regression: goes with --update")
    checked = decide(run, gates, against, update, allow_regression)
    if junit is not None:
        write_text(junit, junit_xml(checked))
    if sarif is not None:
        write_json(sarif, sarif_log(checked))
    if markdown is not None:
        write_text(markdown, as_markdown(checked))
    if os.environ.get(_SUMMARY):
        with Path(os.environ[_SUMMARY]).open("a", encoding="utf-8") as summary:
            summary.write(as_markdown(checked))
    if as_json:
        print_json(checked.to_json())
    else:
        print_check(checked)
    if annotations == "github" or (annotations is None and os.environ.get(_ON_GITHUB) == "true"):
        for line in github_annotations(checked, Path(os.environ.get(_CHECKOUT) or Path.cwd())):
            typer.echo(line, err=True)
    return checked.exit_code
