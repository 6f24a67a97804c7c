"""Which rows of a data set a task keeps: conditions on the text of a column."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Column = Annotated[str, Field(min_length=1)]


def _as_texts(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else (value,)


Texts = Annotated[tuple[str, ...], BeforeValidator(_as_texts), Field(min_length=1)]


class Where(BaseModel):
    """One condition on a column; an absent value is the empty text."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True
    )

    column: Column
    """The column looked at."""
    equals: str | None = None
    """Keep rows with exactly this text."""
    one_of: Texts | None = Field(default=None, alias="in")
    """Keep rows with one of these texts."""
    none_of: Texts | None = Field(default=None, alias="not")
    """Keep rows with another text than this one, or than any of these."""
    startswith: str | None = None
    """Keep rows that begin so."""
    not_startswith: str | None = None
    """Keep rows that do not begin so."""
    at_least: float | None = Field(default=None, allow_inf_nan=False)
    """Keep rows with this number or a higher one."""
    at_most: float | None = Field(default=None, allow_inf_nan=False)
    """Keep rows with this number or a lower one; beside `at_least`, a range."""

    @model_validator(mode="after")
    def _one_condition(self) -> Where:
        texts = (self.equals, self.one_of, self.none_of, self.startswith, self.not_startswith)
        given = sum(value is not None for value in texts)
        if given + (self.is_numeric) != 1:
            raise ValueError(
                "expected exactly one of equals, in, not, startswith, not_startswith, and at_least with at_most"
            )
        return self

    @property
    def is_numeric(self) -> bool:
        """Whether the column holds numbers."""
        return self.at_least is not None or self.at_most is not None

    def keeps(self, text: str) -> bool:
        """Return whether a row whose column holds `text` stays.

        Raises:
            ValueError: a number was expected.
        """
        if self.is_numeric:
            number = float(text)
            above = self.at_least is None or number >= self.at_least
            return above and (self.at_most is None or number <= self.at_most)
        if self.equals is not None:
            return text == self.equals
        if self.one_of is not None:
            return text in self.one_of
        if self.none_of is not None:
            return text not in self.none_of
        if self.startswith is not None:
            return text.startswith(self.startswith)
        return not text.startswith(self.not_startswith or "")


def _as_conditions(value: object) -> object:
    return (value,) if isinstance(value, dict) else value


Conditions = Annotated[tuple[Where, ...], BeforeValidator(_as_conditions)]
"""All of which a row must meet; a single one may stand alone."""
