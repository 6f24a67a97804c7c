"""Options of the command line made of the settings that have a flag."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from harness.base.errors import BadInputError
from harness.base.settings import Flag, Setting
from harness.config import RunConfig, choices_of

HOW = "How"


def option(panel: str, *names: str, help: str, **more: Any) -> Any:
    """Return an option under a heading of `--help`."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def takes_settings(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command an option for each setting with a flag; its `flags` are those that were given, by dotted name.

    The command has no text of its own, since several are made of it.
    """
    settings = {
        flag.names[0].lstrip("-").replace("-", "_"): (each, flag)
        for each in RunConfig.declared()
        if (flag := each.flag) is not None
    }

    @wraps(command)
    def called(**values: Any) -> int:
        given = {
            each.name: _read(each, value)
            for name, (each, _) in settings.items()
            if (value := values.pop(name)) is not None
        }
        return command(flags=given, **values)

    options = [_parameter(name, each, flag) for name, (each, flag) in settings.items()]
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    place = [parameter.name for parameter in own].index("flags")
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in [*own[:place], *options, *own[place + 1 :]]
    ]
    panels = list(dict.fromkeys(flag.panel for _, flag in settings.values()))
    parameters.sort(key=lambda parameter: _place(parameter, panels))
    called.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    called.__doc__ = None
    return called


def _parameter(name: str, setting: Setting, flag: Flag) -> inspect.Parameter:
    how = option(flag.panel, *flag.names, help=flag.help, autocompletion=_completion(setting))
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_typed(setting.annotation) | None, how],
    )


def _place(parameter: inspect.Parameter, panels: list[str]) -> int:
    """Return which panel of `--help` a parameter goes to; those without come first."""
    for said in get_args(parameter.annotation)[1:]:
        if said.rich_help_panel in panels:
            return 1 + panels.index(said.rich_help_panel)
    return 0


def _typed(annotation: Any) -> Any:
    """Return what the command line reads a value as; the configuration checks it."""
    kind = get_origin(annotation) or annotation
    if kind is Annotated:
        return _typed(get_args(annotation)[0])
    if kind in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return _typed(parts[0]) if len(parts) == 1 else str
    if kind is list:
        return annotation
    return kind if kind in (bool, int, float) else str


def _read(setting: Setting, value: Any) -> Any:
    if isinstance(value, list) and not all(isinstance(item, Path) for item in value):
        return _items(value)
    return _READERS.get(setting.name, lambda given: given)(value)


def _items(values: list[str]) -> list[str]:
    """Read a list flag: repeated, comma-separated, or the word none."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _weights(text: str) -> dict[str, float]:
    """Read `refuse=1,retain_kl=0.5`; the configuration checks the numbers, the plan the names."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise BadInputError(
                f"--objectives {text}: expected weights by name, such as refuse=1,retain_kl=0.5"
            )
    return weights


def _limit(text: str) -> int | dict[str, int]:
    """Read `100` or `identify=50,test=100`; the configuration checks the splits' names."""
    try:
        if "=" not in text:
            return int(text)
        return {split.strip(): int(number) for split, number in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise BadInputError(
            f"--limit {text}: expected a number, or numbers by split such as identify=50,test=100"
        ) from None


_READERS: Mapping[str, Callable[[Any], Any]] = {"limit": _limit, "training.objectives": _weights}


def _completion(setting: Setting) -> Callable[[str], list[str]] | None:
    """Return what completes a value in a shell, where the values are known."""
    choices = choices_of(setting.annotation)
    names = (lambda: choices) if choices else _NAMES.get(setting.name)
    if names is None:
        return None

    def complete(incomplete: str) -> list[str]:
        # Of a list, the name behind the last comma.
        before = incomplete[: incomplete.rfind(",") + 1]
        return [before + name for name in names() if (before + name).startswith(incomplete)]

    return complete


def _judges() -> list[str]:
    from harness.judges.base import JUDGES

    return list(JUDGES)


def _variants() -> list[str]:
    from harness.interventions.spec import list_variants

    return list(list_variants([]))


def _engines() -> list[str]:
    from harness.engines.base import ENGINES
    from harness.engines.choose import AUTO

    return [*ENGINES, AUTO]


def _tasks() -> list[str]:
    from harness.data.task import list_tasks

    return [spec.name for spec in list_tasks([])]


_NAMES: Mapping[str, Callable[[], list[str]]] = {
    "intervention": _variants,
    "baselines": _variants,
    "tasks": _tasks,
    "judge": _judges,
    "engine": _engines,
}
