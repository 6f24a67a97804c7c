"""Settings that say what they decide and how the command line calls them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

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


class Flag(NamedTuple):
    """A setting's option on the command line.

    Attributes:
        names: such as --model and -m.
        panel: the heading that `--help` lists it under.
        help: its line there.
    """

    names: tuple[str, ...]
    panel: str
    help: str


class Setting(NamedTuple):
    """One declared setting.

    Attributes:
        name: dotted.
        annotation: the type of its values.
        default: where no layer of the configuration sets it.
        help: its meaning.
        decides: what a change of it makes anew.
        whole: given anew, a mapping is replaced and not merged.
        flag: None where only `--set` and files reach it.
    """

    name: str
    annotation: Any
    default: Any
    help: str
    decides: tuple[Decides, ...]
    whole: bool
    flag: Flag | None


def setting(
    default: Any,
    help: str,
    *,
    decides: Decides | Sequence[Decides],
    whole: bool = False,
    flag: str | Sequence[str] = (),
    panel: str = "",
    brief: str = "",
    **limits: Any,
) -> Any:
    """Declare a setting.

    Args:
        default: its value where nothing sets it.
        help: its meaning, for the docs.
        decides: what a change of it makes anew.
        whole: it is a mapping of the user's own, replaced when given anew.
        flag: its names on the command line.
        panel: the heading that `--help` lists the flag under.
        brief: the flag's line in `--help`, with `{default}` for the default; by default made of `help`.
        limits: as for pydantic's `Field`, such as `ge=0`.
    """
    said: dict[str, Any] = {
        "decides": [decides] if isinstance(decides, str) else list(decides),
        "whole": whole,
        "flag": [flag] if isinstance(flag, str) else list(flag),
        "panel": panel,
        "brief": brief or f"{help[:1].upper()}{help[1:]}.",
    }
    return Field(default, description=help, json_schema_extra=said, **limits)


class Settings(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @classmethod
    def declared(cls, prefix: str = "") -> Iterator[Setting]:
        """Yield all settings, those of groups too."""
        for name, field in cls.model_fields.items():
            group = field.annotation
            if isinstance(group, type) and issubclass(group, Settings):
                yield from group.declared(f"{prefix}{name}.")
            else:
                yield _declared(prefix + name, field)

    @classmethod
    def names_deciding(cls, *what: Decides) -> frozenset[str]:
        """Return the dotted names of the settings that decide any of this."""
        return frozenset(each.name for each in cls.declared() if set(what) & set(each.decides))

    def deciding(self, *what: Decides) -> dict[str, Any]:
        """Return the settings that decide any of this, as JSON, groups within groups."""
        values = self.model_dump(mode="json") | self.effective()
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Settings):
                if inner := value.deciding(*what):
                    found[name] = inner
            elif set(what) & set(_declared(name, field).decides):
                found[name] = values[name]
        return found

    def effective(self) -> dict[str, Any]:
        """Return what settings that were left to other settings come to."""
        return {}


def _declared(name: str, field: FieldInfo) -> Setting:
    said: Any = field.json_schema_extra or {}
    default = field.get_default(call_default_factory=True)  # type: ignore[call-arg,unused-ignore]
    names = tuple(said.get("flag", ()))
    flag = Flag(names, said["panel"], said["brief"].replace("{default}", str(default))) if names else None
    return Setting(
        name,
        field.annotation,
        None if default is PydanticUndefined else default,
        field.description or "",
        tuple(said.get("decides", ())),
        bool(said.get("whole")),
        flag,
    )
