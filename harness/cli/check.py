"""`harness check`: gates for CI."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import BadInputError

_SUMMARY = "GITHUB_STEP_SUMMARY"


def check(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    gates: Annotated[
        Path, typer.Option("--gates", help="The file that says what must hold (docs/gates.md).")
    ],
    against: Annotated[
        str | None,
        typer.Option("--against", help="What to compare with: a reference's name or file, or a run folder."),
    ] = None,
    update: Annotated[
        str | None,
        typer.Option(
            "--update", metavar="REFERENCE", help="Write this reference from the run, if gates pass."
        ),
    ] = None,
    allow_regression: Annotated[
        str | None,
        typer.Option("--allow-regression", metavar="REASON", help="Let the reference get worse; keeps why."),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option("--sarif", help="Also write SARIF.")] = None,
    markdown: Annotated[Path | None, typer.Option("--markdown", help="Also write Markdown.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Decide gates on a run: exit code 0 if all pass, 3 if one fails, 4 if one is inconclusive."""
    from harness.base.files import write_json, write_text
    from harness.gate.check import check as decide
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
        typer.echo(json.dumps(checked.to_json(), ensure_ascii=False))
    else:
        print_check(checked)
    return checked.exit_code
