"""The reference pages of the command line: every command with its options, and every setting."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer.main

from harness.cli.main import app
from harness.config import RunConfig
from tools.markdown import generated, table

# They take what `run` takes.
STEPS = ("capture", "select", "train", "evaluate")


def settings_page() -> str:
    """Return the page of all settings, with their option, default, meaning and what they decide."""
    rows = (
        [
            f"`{each.name}`",
            ", ".join(f"`{flag}`" for flag in each.flags),
            "" if each.default is None else f"`{each.default}`",
            each.meaning + (f" ({' | '.join(each.choices)})" if each.choices else ""),
            ", ".join(each.decides),
        ]
        for each in RunConfig.declared()
    )
    introduction = (
        "Every setting of a run. `--set NAME=VALUE` or a `--config` file sets any of them, an option those that have "
        "one ([how](../command-line.md#settings)). What a setting decides is made anew when it changes for an "
        "existing run folder, with all that builds on it: the *prompts* asked, the *answers*, the expert *table*, "
        "which *experts* are selected, their *training*, the *variants*, what is measured (*measures*); or *nothing*."
    )
    return generated(
        "Settings", introduction, table(["setting", "option", "default", "meaning", "decides"], rows)
    )


def commands_page() -> str:
    """Return the page of all commands, with their arguments and options."""
    introduction = (
        "Every command; [the command line](../command-line.md) is the guide. Options that are "
        "[settings](settings.md) of a run are listed there alone: `run`, its steps and, where they concern it, "
        "`compare` take them."
    )
    return generated("Commands", introduction, *_sections())


def _sections() -> Iterator[str]:
    for name, command in _commands(typer.main.get_command(app), "harness"):
        head = f"## {name}\n\n```text\n{_usage(name, command)}\n```\n\n{inspect.cleandoc(command.help or '')}"
        if name.removeprefix("harness ") in STEPS:
            yield f"{head} Takes the options of `harness run`."
            continue
        rows = [
            [", ".join(f"`{option}`" for option in (*each.opts, *each.secondary_opts)), each.help or ""]
            for each in command.params
            if getattr(each, "help", None) and not _is_setting(name, each)
        ]
        yield f"{head}\n\n{table(['argument or option', 'meaning'], rows)}" if rows else head


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the commands at the end of each branch, with their whole name."""
    for part, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{name} {part}")
    if not hasattr(command, "commands") and not command.hidden:
        yield name, command


def _is_setting(name: str, parameter: Any) -> bool:
    """Whether `run` or `compare` takes it as a setting, so that the page of settings has it."""
    flags = {flag for each in RunConfig.declared() for flag in each.flags}
    return name in ("harness run", "harness compare") and not flags.isdisjoint(parameter.opts)


def _usage(name: str, command: Any) -> str:
    arguments = [
        (each.name.upper() if each.required else f"[{each.name.upper()}]")
        + ("..." if each.nargs == -1 else "")
        for each in command.params
        if each.param_type_name == "argument"
    ]
    return " ".join([name, *arguments])
