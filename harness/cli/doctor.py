"""`harness doctor`: what is here, what a model wants, and the command to run."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.content import DataDir, Include
from harness.cli.shared import Json, Trust, print_json


def doctor(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]")] = None,
    data_dir: DataDir = None,
    include: Include = None,
    as_json: Json = False,
    trust_remote_code: Trust = False,
) -> int:
    """Say what is at hand here, what a model wants (thinking, memory, training), and the command to run it.

    No weights are loaded or downloaded, and the hub has 3 seconds to answer. Exit code 0: a run can go; 1: something
    stops it, such as a package that is too old, weights that are damaged, or a model that does not fit; 2: there is no
    such model or folder.

    Args:
        model: demo, smol-moe, a folder or a hub id.
        data_dir: Folder with copies of public sets; may be repeated.
        include: Folder with more YAML files; may be repeated.
        as_json: Print the result as JSON.
        trust_remote_code: Let the checkpoint's own Python code run where transformers has no class for it.
    """
    from harness.doctor.check import check

    found = check(model, data_dir or [], include or [], trust_remote_code)
    if as_json:
        print_json(found)
    else:
        from harness.doctor.show import lines

        for line in lines(found):
            typer.echo(line)
    return 1 if found["problems"] else 0
