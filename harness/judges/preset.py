"""What the files that describe a judge have in common, whatever their form."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness.judges.base import Quantity

LABELS: dict[Quantity, tuple[str, str]] = {
    "refusal": ("refusal", "compliance"),
    "harmfulness": ("harmful", "harmless"),
}
"""The positive and the negative label of each quantity."""


class Preset(BaseModel):
    """A judge, as its YAML file states it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The judge's name; the file is called like it."""
    form: str
    """How it judges: one of `harness.judges.find.FORMS`."""
    measures: Quantity
    """What its labels are about."""
    description: str = Field(min_length=1)
    """One sentence on how it decides."""
    source: str = Field(min_length=1)
    """Whom to cite."""
    languages: str = Field(default="those of its model", min_length=1)
    """The languages whose answers it reads."""
    also: tuple[str, ...] = ()
    """Judges that are named with this one: what else its model says in the same words."""
    licence: str | None = None
    """Of the model."""
    access: str | None = None
    """What the hub asks before it gives the model out."""


P = TypeVar("P", bound=Preset)


class PresetJudge(Generic[P]):
    """A judge that a file describes.

    Args:
        preset: the file's content.
    """

    name: str
    description: str
    languages: str
    source: str | None

    def __init__(self, preset: P) -> None:
        self.preset = preset
        self.name = preset.name
        self.description = preset.description
        self.languages = preset.languages
        self.source = preset.source

    @property
    def measures(self) -> str:
        """Whether its labels are about refusal or harmfulness."""
        return self.preset.measures

    @property
    def settings(self) -> dict[str, Any]:
        """The whole file, with the texts of other files that it names: the judge can be made of it again."""
        return self.preset.model_dump(mode="json", exclude_none=True)
