"""`harness --install-completion` and `--show-completion`, for the shell that is named or the one that called."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from typer._completion_shared import Shells, get_completion_script, install

from harness.base.errors import BadInputError

_SHELLS = [shell.value for shell in Shells]


def complete(option: str, words: Sequence[str]) -> None:
    """Install or print the script with which a shell completes the command line.

    Args:
        option: --install-completion or --show-completion.
        words: what follows it: the shell's name, or nothing.

    Raises:
        BadInputError: no such shell is known, or none is named and no parent process is one.
    """
    shell = words[0] if words else _calling_shell()
    known = ", ".join(_SHELLS)
    if shell is None:
        raise BadInputError(
            f"{option}: no process above this one is a known shell: name it, such as `harness {option} bash` ({known})"
        )
    if shell not in _SHELLS:
        raise BadInputError(f"{option}: no completion for the shell '{shell}', known: {known}")
    if option == "--show-completion":
        typer.echo(get_completion_script(prog_name="harness", complete_var="_HARNESS_COMPLETE", shell=shell))
        return
    _, path = install(shell, "harness", "_HARNESS_COMPLETE")
    typer.echo(f"{shell} completion installed in {path}: restart the terminal to use it")


def _calling_shell() -> str | None:
    import shellingham

    try:
        name: str = shellingham.detect_shell()[0]
    except shellingham.ShellDetectionFailure:
        return None
    return name
