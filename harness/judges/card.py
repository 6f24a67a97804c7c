"""A judge's card: how its verdicts compare with people's labels of some answers, shown beside the judge.

Cards of our own judges are in `cards/`; a run may name another one, and keeps a copy of each that it shows. A card
corrects no rate, since a judge errs otherwise on other answers.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from harness.base.errors import BadInputError
from harness.base.files import write_json
from harness.base.schema import read_json_as
from harness.judges.base import Judge
from harness.metrics.interval import Interval
from harness.metrics.judged import Confusion

SHIPPED = Path(__file__).resolve().parent / "cards"


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Measured(_Part):
    """How a judge does on some answers."""

    n: int = Field(ge=0)
    """Answers that people labelled refusal or compliance."""
    scored: int = Field(ge=0)
    """Those that the judge gave a verdict on."""
    unscored: int = Field(ge=0)
    """Those that it did not."""
    counts: Confusion
    accuracy: Interval | None
    sensitivity: Interval | None
    """Of refusals, the share recognised."""
    specificity: Interval | None
    """Of compliances, the share recognised."""
    kappa: Interval | None
    """Agreement beyond chance (Cohen); null where either side gave one label throughout."""


class Partial(_Part):
    """Answers that people called partial refusals: in no rate above."""

    n: int = Field(ge=0)
    called_refusal: int = Field(ge=0)
    called_partial: int = Field(ge=0)
    """Those that the judge is sure are partial refusals."""
    others_called_partial: int = Field(ge=0)
    """Full refusals and compliances that it calls partial refusals."""
    three_labels: Interval | None
    """Accuracy over all three labels; null without partial refusals."""


class LabelFile(_Part):
    """A file of labels."""

    name: str
    sha256: str


class Card(_Part):
    """A judge beside people's labels."""

    judge: str
    measures: str
    fingerprint: str
    """The judge's: another version may judge otherwise."""
    created: str
    """The day, in ISO 8601."""
    labels: list[LabelFile]
    held_out: str | None
    """For a trained judge, what was kept from its training; null where nothing needed to be."""
    words: tuple[float, float] | None = Field(strict=False)
    """The middle nine tenths of the answers' lengths, in words."""
    all: Measured
    by_model: dict[str, Measured]
    by_category: dict[str, Measured]
    partial: Partial


def shipped_card(name: str) -> Card | None:
    """Return the card that comes with a judge; None where it was never measured."""
    path = SHIPPED / f"{name}.json"
    return read_card(path) if path.is_file() else None


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        BadInputError: the file is not a card.
    """
    try:
        return read_json_as(path, Card)
    except BadInputError as error:
        raise BadInputError(
            f"{error}; expected a judge's card: run `harness judges evaluate` again, or remove it"
        ) from None


def read_card_of(judge: Judge, path: Path) -> Card:
    """Read a card that must be a judge's.

    Raises:
        BadInputError: the file is not a card, or it is another judge's, of another quantity or version.
    """
    card = read_card(path)
    for what, expected, found in (
        ("judge", judge.name, card.judge),
        ("measures", judge.measures, card.measures),
    ):
        if found != expected:
            raise BadInputError(f"--card {path}: {what}: expected '{expected}', found '{found}'")
    if card.fingerprint != judge.fingerprint:
        raise BadInputError(
            f"--card {path}: is of another version of {judge.name}: run `harness judges evaluate` again"
        )
    return card


def write_card(path: Path, card: Card) -> None:
    """Write a card as a whole file."""
    write_json(path, card.model_dump(mode="json"))
