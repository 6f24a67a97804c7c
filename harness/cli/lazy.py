"""A group of commands that are imported when they are run or explained, not when they are listed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import typer
import typer.core
import typer.main
from typer.core import CompletionItem  # type: ignore[attr-defined]

HELP_NAMES = ["--help", "-h"]
LOOKS: dict[str, Any] = {
    "add_completion": False,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
}
# In the section Args of a docstring: a name, and its meaning over one or more lines.
_ARGUMENT = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


class Listed(NamedTuple):
    """A command before it is imported.

    Attributes:
        target: its function or its group of commands, as MODULE:ATTRIBUTE.
        help: its line in the listing.
    """

    target: str
    help: str


class _Commands(Mapping[str, Any]):
    """Commands by name, each imported when it is asked for."""

    def __init__(self, listed: Mapping[str, Listed]) -> None:
        self.listed = listed
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, self.listed[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.listed)

    def __len__(self) -> int:
        return len(self.listed)


def _load(name: str, listed: Listed) -> Any:
    from pkgutil import resolve_name

    target = resolve_name(listed.target)
    holder = typer.Typer(**LOOKS)
    # With a callback, a typer of a single command is a group all the same.
    holder.callback()(lambda: None)
    if isinstance(target, typer.Typer):
        holder.add_typer(target, name=name)
    else:
        holder.command(name, help=None if target.__doc__ else listed.help)(target)
    command = typer.main.get_group(holder).commands[name]
    _explain(command)
    return command


def _explain(command: Any) -> None:
    """Take the help of a command's options and arguments out of the section Args of its docstring."""
    for each in getattr(command, "commands", {}).values():
        _explain(each)
    command.help, _, arguments = (command.help or "").partition("\n\nArgs:\n")
    meanings = dict(_ARGUMENT.findall(arguments))
    for parameter in command.params:
        if parameter.name in meanings:
            parameter.help = " ".join(meanings[parameter.name].split())


class LazyGroup(typer.core.TyperGroup):
    """The commands of `listed`; their listing imports none of them."""

    listed: ClassVar[Mapping[str, Listed]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Commands(self.listed)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the listing as typer prints a group's help, without what typer imports to explain a command."""
        from rich.console import Console
        from rich.padding import Padding
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        def panel(title: str, rows: Sequence[tuple[Text, ...]]) -> Panel:
            table = Table(box=None, show_header=False, expand=True, pad_edge=False, padding=(0, 1))
            for _ in rows[0][:-1]:
                table.add_column(no_wrap=True)
            table.add_column(ratio=1)
            for row in rows:
                table.add_row(*row)
            return Panel(table, title=title, title_align="left", border_style="dim")

        options = []
        for each in self.get_params(ctx):
            kinds = [[name for name in each.opts if name.startswith("--") == long] for long in (True, False)]
            names = [
                Text(",".join(kind), "bold cyan" if kind is kinds[0] else "bold green") for kind in kinds
            ]
            options.append((*names, Text("<bool>", "bold yellow"), Text(getattr(each, "help", None) or "")))
        commands = [(Text(name, "bold cyan"), Text(each.help)) for name, each in self.listed.items()]
        usage = Text.assemble(("Usage: ", "yellow"), self.get_usage(ctx).removeprefix("Usage: "))
        console = Console(highlight=False)
        console.print(Padding(usage, 1), style="bold")
        console.print(Padding(Text(self.help or ""), (0, 1, 1, 1)))
        console.print(panel("Options", options))
        console.print(panel("Commands", commands))

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete a command's name from the listing, or one of the group's own options."""
        own = super(typer.core.TyperGroup, self).shell_complete(ctx, incomplete)
        names = [name for name in self.listed if name.startswith(incomplete)]
        return [CompletionItem(name, help=self.listed[name].help) for name in names] + own
