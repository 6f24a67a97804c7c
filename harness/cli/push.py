"""`harness models push`: a trained variant as a repository of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.base.errors import BadInputError
from harness.cli.shared import Json, Trust, print_json

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.runs.run import Run


def push(
    variant: Annotated[Path, typer.Argument(metavar="RUN/variants/NAME")],
    repository: Annotated[str, typer.Argument(metavar="ORG/REPO")],
    merged: Annotated[bool, typer.Option("--merged")] = False,
    private: Annotated[bool, typer.Option("--private/--public")] = True,
    revision: str | None = None,
    message: Annotated[str | None, typer.Option("--message", "-m")] = None,
    licence: str | None = None,
    base_model: Annotated[str | None, typer.Option(metavar="ORG/BASE")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o")] = None,
    as_json: Json = False,
    trust_remote_code: Trust = False,
) -> None:
    """Push a trained variant to the Hub, with a card that has its figures, its frozen proof and its hashes.

    What is pushed is its delta, which `harness models apply BASE hf://ORG/REPO OUT` puts into its base. The run must be
    finished and unchanged, and the frozen proof must hold. huggingface_hub finds the token (`hf auth login`, HF_TOKEN).

    Args:
        variant: Folder of the variant.
        repository: Owner and name; created where there is none.
        merged: Push the whole checkpoint with the experts in it.
        private: Let its owner alone see it; one that is public already needs --public.
        revision: Branch to write to. [main]
        message: Of the commit. ["Push NAME of run ID"]
        licence: The Hub's name of the licence, where the base's card says none.
        base_model: The base's id on the Hub, for the card, where the run's model was a folder.
        dry_run: Push nothing: write the files into --output.
        output: New or empty folder for --dry-run.
        as_json: Print the result as JSON.
        trust_remote_code: Let the checkpoint's own Python code run where transformers has no class for it.
    """
    from harness.checkpoints.hub import check_repository, require_token, upload
    from harness.export.push import Target, files_of, find_pushable, write_folder
    from harness.models.load import quiet_transformers

    check_repository(repository, revision)
    if base_model is not None:
        check_repository(base_model)
    if dry_run != (output is not None):
        raise BadInputError("--dry-run and --output go together: expected both, or neither")
    if not dry_run:
        require_token()
    quiet_transformers()
    target = Target(repository, revision, merged, licence, base_model)
    pushable = find_pushable(variant)
    result: dict[str, Any] = {"repository": repository, "merged": merged}
    with files_of(pushable, _base(pushable.run, merged, trust_remote_code), target) as files:
        result["files"] = sorted(files)
        if output is not None:
            write_folder(files, output)
            line = f"{output}: {len(files)} files for {repository}; nothing was pushed"
            result["output"] = str(output)
        else:
            commit = message or f"Push {pushable.name} of run {pushable.run.summary.run_id}"
            done = upload(repository, files, private=private, revision=revision, message=commit)
            line = f"{repository} ({'private' if done.private else 'public'}): {done.url}"
            result |= {"url": done.url, "private": done.private}
    if as_json:
        print_json(result)
    else:
        typer.echo(line)


def _base(run: Run, needed: bool, trust_remote_code: bool) -> ModelRef | None:
    """Return the run's model where it was, or by its name where it is needed and gone; None otherwise."""
    from harness.models.load import ModelRef, resolve_model

    path = Path(run.model.path)
    if (path / "config.json").is_file():
        return ModelRef(run.model.name, path, trust_remote_code)
    return (
        resolve_model(run.record.config.get("model", run.model.name), trust_remote_code) if needed else None
    )
