"""What the files that describe a judge have in common, whatever their form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness.base.errors import BadInputError, first_line
from harness.judges.base import Quantity

if TYPE_CHECKING:
    import jinja2

LABELS: dict[Quantity, tuple[str, str]] = {
    "refusal": ("refusal", "compliance"),
    "harmfulness": ("harmful", "harmless"),
}
"""The positive and the negative label of each quantity."""


def require_labels(labels: Iterable[str], known: Iterable[str], measures: Quantity) -> None:
    """Refuse labels that a quantity does not have.

    Raises:
        ValueError: names the first one.
    """
    for label in labels:
        if label not in known:
            raise ValueError(f"labels: {label} is no label of a judge of {measures}")


def question_template(judge: str, text: str, fields: Iterable[str], what: str) -> jinja2.Template:
    """Return what is asked about an answer as a template, which may be a stranger's and so runs no code.

    Args:
        judge: the judge's name, for messages.
        text: Jinja.
        fields: the names that it may use.
        what: what it is to be, for messages.

    Raises:
        BadInputError: it is something else.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
    try:
        template = environment.from_string(text)
        template.render(dict.fromkeys(fields, ""))
    except jinja2.TemplateError as error:
        raise BadInputError(f"judge '{judge}': template: not {what} ({first_line(error)})") from None
    return template


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
