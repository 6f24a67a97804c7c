"""Settings that say what they decide and how the command line calls them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, cast, get_args

from pydantic import BaseModel, ConfigDict, Field

Decides = Literal["prompts", "answers", "table", "experts", "training", "variants", "measures", "nothing"]
"""What a setting goes into, each with a fingerprint of its own; what follows from that is not named again.

- prompts: which prompts are asked, and how many.
- answers: how a model answers any prompt.
- table: the expert table, a score for each expert.
- experts: which experts are selected from the table.
- training: how selected experts are trained.
- variants: which variants there are.
- measures: what is measured on the answers.
- nothing: how the work is done; it changes no result.
"""


class Setting(NamedTuple):
    """One declared setting.

    Attributes:
        name: dotted.
        annotation: the type of its values.
        default: where no layer of the configuration sets it.
        meaning: one sentence.
        decides: what a change of it makes anew.
        flags: its names on the command line, such as --model and -m; none where only `--set` and files reach it.
        panel: the heading that `--help` lists its flags under.
        whole: given anew, a mapping is replaced and not merged.
    """

    name: str
    annotation: Any
    default: Any
    meaning: str
    decides: tuple[Decides, ...]
    flags: tuple[str, ...]
    panel: str
    whole: bool

    @property
    def choices(self) -> list[str]:
        """The values of a setting that takes one of a few words; none for others."""
        choices = list(get_args(self.annotation))
        return choices if all(isinstance(choice, str) for choice in choices) else []


def setting(
    default: Any,
    *,
    decides: Decides | tuple[Decides, ...],
    flag: str | tuple[str, ...] = (),
    panel: str | None = None,
    whole: bool = False,
    **limits: Any,
) -> Any:
    """Declare a setting; the docstring below it is its meaning.

    Args:
        default: its value where nothing sets it.
        decides: what a change of it makes anew.
        flag: its names on the command line.
        panel: the heading that `--help` lists the flag under; by default that of its group.
        whole: it is a mapping of the user's own, replaced when given anew.
        limits: as for pydantic's `Field`, such as `ge=0`.
    """
    extra: dict[str, Any] = {
        "decides": (decides,) if isinstance(decides, str) else decides,
        "flags": (flag,) if isinstance(flag, str) else flag,
        "panel": panel,
        "whole": whole,
    }
    return Field(default, json_schema_extra=extra, **limits)


class Settings(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    panel: ClassVar[str] = ""
    """The heading that `--help` lists its flags under."""

    @classmethod
    def declared(cls, prefix: str = "") -> Iterator[Setting]:
        """Yield all settings, those of groups too."""
        for name, field in cls.model_fields.items():
            group = field.annotation
            if isinstance(group, type) and issubclass(group, Settings):
                yield from group.declared(f"{prefix}{name}.")
            else:
                extra = cast("dict[str, Any]", field.json_schema_extra)
                meaning = " ".join((field.description or "").split())
                panel = extra["panel"] or cls.panel
                yield Setting(prefix + name, group, field.default, meaning, **{**extra, "panel": panel})

    @classmethod
    @functools.cache
    def names_deciding(cls, *what: Decides) -> frozenset[str]:
        """Return the dotted names of the settings that decide any of this."""
        return frozenset(each.name for each in cls.declared() if set(what) & set(each.decides))

    def deciding(self, *what: Decides) -> dict[str, Any]:
        """Return the settings that decide any of this, as JSON, groups within groups."""
        values = self.model_dump(mode="json") | self.effective()
        decisive = self.names_deciding(*what)
        result: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Settings):
                if inner := value.deciding(*what):
                    result[name] = inner
            elif name in decisive:
                result[name] = values[name]
        return result

    def effective(self) -> dict[str, Any]:
        """Return the values of settings that were left to other settings."""
        return {}
