"""Options of the command line made of the settings that have a flag."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer

from harness.base.errors import BadInputError
from harness.base.settings import Setting
from harness.config import RunConfig


def takes_settings(command: Callable[..., int], but: Iterable[str] = ()) -> Callable[..., int]:
    """Give a command an option for each setting with a flag; its `flags` are those that were given, by dotted name.

    The command has no text of its own, since several are made of it.

    Args:
        command: the function.
        but: settings, and panels of settings, that it does not take.
    """
    settings = {
        _parameter_name(each): each
        for each in RunConfig.declared()
        if each.flags and not {each.name, each.panel} & {*but}
    }

    @wraps(command)
    def called(**values: Any) -> int:
        given = {
            each.name: _read(each, value)
            for name, each in settings.items()
            if (value := values.pop(name)) is not None
        }
        return command(flags=given, **values)

    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
    ]
    place = [parameter.name for parameter in own].index("flags")
    own[place : place + 1] = map(_parameter, settings.values())
    panels = [None, *dict.fromkeys(each.panel for each in settings.values())]
    own.sort(key=lambda parameter: panels.index(_panel(parameter)))
    called.__signature__ = inspect.Signature(own, return_annotation=int)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in own}
    called.__doc__ = None
    return called


def explained(setting: Setting) -> str:
    """Return a setting's line in `--help`: its meaning, how to write it, and the default where that is one word."""
    kind, default = _typed(setting.annotation), setting.default
    choices = f" One of {', '.join(setting.choices)}." if setting.choices else ""
    shown = f" [{default}]" if isinstance(default, str | int | float) and kind is not bool else ""
    return setting.meaning + choices + _HOW_TO_WRITE.get(kind, "") + shown


def _parameter_name(setting: Setting) -> str:
    return setting.flags[0].lstrip("-").replace("-", "_")


def _parameter(setting: Setting) -> inspect.Parameter:
    how = typer.Option(
        *setting.flags,
        help=explained(setting),
        rich_help_panel=setting.panel,
        autocompletion=_completion(setting),
    )
    return inspect.Parameter(
        _parameter_name(setting),
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[_typed(setting.annotation) | None, how],
    )


def _panel(parameter: inspect.Parameter) -> str | None:
    """Return the panel of `--help` that lists a parameter; None for those without one."""
    return next((each.rich_help_panel for each in get_args(parameter.annotation)[1:]), None)


def _typed(annotation: Any) -> Any:
    """Return the type that the command line reads a value as; the configuration checks it."""
    kind = get_origin(annotation) or annotation
    if kind is Annotated:
        return _typed(get_args(annotation)[0])
    if kind in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return _typed(parts[0]) if len(parts) == 1 else str
    if kind is list:
        return annotation
    return kind if kind in (bool, int, float) else str


_HOW_TO_WRITE = {list[str]: " Comma-separated, or none.", list[Path]: " May be repeated."}


def _read(setting: Setting, value: Any) -> Any:
    if _typed(setting.annotation) == list[str]:
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
    names = (lambda: setting.choices) if setting.choices else _NAMES.get(setting.name)
    if names is None:
        return None

    def complete(incomplete: str) -> list[str]:
        # In a list, the name behind the last comma is completed.
        before = incomplete[: incomplete.rfind(",") + 1]
        return [before + name for name in names() if (before + name).startswith(incomplete)]

    return complete


def _judges() -> Iterable[str]:
    from harness.base.content import yaml_files_by_name
    from harness.judges.base import JUDGES

    return sorted({*JUDGES, *yaml_files_by_name("judges", ())})


def _variants() -> Iterable[str]:
    from harness.interventions.spec import list_variants

    return list_variants([])


def _baselines() -> Iterable[str]:
    from harness.interventions.spec import ZOO

    return [*_variants(), ZOO]


def _engines() -> Iterable[str]:
    from harness.engines.base import ENGINES
    from harness.engines.choose import AUTO

    return [*ENGINES, AUTO]


def _trackers() -> Iterable[str]:
    from harness.tracking.base import TRACKERS

    return TRACKERS


def _tasks() -> Iterable[str]:
    from harness.data.task import list_tasks

    return [spec.name for spec in list_tasks([])]


_NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    "intervention": _variants,
    "baselines": _baselines,
    "tasks": _tasks,
    "judge": _judges,
    "engine": _engines,
    "track": _trackers,
}
