"""What several commands share: options, and how results are printed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Output = Annotated[Path | None, typer.Option("--output", "-o")]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        help="Let the checkpoint's own Python code run where transformers has no class for it.",
    ),
]


def print_json(result: Any) -> None:
    """Print a result for programs, on one line."""
    typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows of the same columns as a table, whose first column holds names, or as JSON."""
    if as_json:
        print_json(rows)
        return
    from harness.report.listing import listing, width_of_terminal

    for line in listing(rows, width_of_terminal()):
        typer.echo(line)


def print_fields(fields: Mapping[str, Any], as_json: bool) -> None:
    """Print fields as YAML, those without a value left out, or as JSON."""
    if as_json:
        print_json(fields)
        return
    import yaml

    typer.echo(yaml.safe_dump(_known(fields), sort_keys=False, allow_unicode=True, width=100).rstrip())


def _known(value: Any) -> Any:
    """Return a value without the fields, at any depth, that have none."""
    if not isinstance(value, Mapping):
        return value
    known = {name: _known(part) for name, part in value.items()}
    return {name: part for name, part in known.items() if part not in (None, [], {})}
