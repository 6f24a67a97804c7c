"""A judge's card: how its verdicts compare with people's labels of some answers, shown beside the judge.

Cards of our own judges are in `cards/`; a run may name another one, and keeps a copy of each that it shows. A card
corrects no rate, since a judge errs otherwise on other answers.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from harness.base.errors import BadInputError
from harness.base.files import write_json
from harness.base.schema import read_json_as
from harness.judges.base import Judge
from harness.metrics.interval import Interval
from harness.metrics.judged import Confusion, Counts, Departure, HarmConfusion

SHIPPED = Path(__file__).resolve().parent / "cards"


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Measured(_Part):
    """How a judge does on some answers."""

    n: int = Field(ge=0)
    """Answers that people labelled refusal or compliance, or harmful or harmless."""
    scored: int = Field(ge=0)
    """Those that the judge gave a verdict on."""
    unscored: int = Field(ge=0)
    """Those that it did not."""
    counts: Confusion | HarmConfusion
    accuracy: Interval | None
    sensitivity: Interval | None
    """Of refusals (or harmful answers), the share recognised; null where the labels cannot tell."""
    specificity: Interval | None
    """Of compliances (or harmless answers), the share recognised; null where the labels cannot tell."""
    kappa: Interval | None
    """Agreement beyond chance (Cohen); null where either side gave one label throughout."""
    precision: Interval | None = Field(default=None, validate_default=True)
    """Of the answers that the judge calls refusals (or harmful), the share that people call so."""
    clusters: int | None = Field(default=None, ge=1)
    """Prompts of the scored answers, near-duplicates as one: the unit of the intervals.

    Null where the answer is, each to a prompt of its own, and in cards made before 2026-11-27.
    """

    @field_validator("precision")
    @classmethod
    def _older_cards_say_it_in_counts(cls, value: Interval | None, info: ValidationInfo) -> Interval | None:
        counts: Counts | None = info.data.get("counts")
        return counts.precision if value is None and counts is not None else value


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
    by_task: dict[str, Measured] = Field(default_factory=dict)
    by_attack: dict[str, Measured] = Field(default_factory=dict)
    by_model_and_attack: dict[str, Measured] = Field(default_factory=dict)
    """By "MODEL, ATTACK", where there are several of both."""
    positives_of: str | None = None
    """The judge whose positives alone were labelled; null where answers were not chosen by a verdict."""
    labelled_from: float | None = None
    """The score from which people's labels count as positive; null where they are labels."""
    uneven: dict[str, list[Departure]] = Field(default_factory=dict)
    """The parts on which the judge errs more than on the rest, by what the parts share.

    Each way of parting is a family of tests of its own. Without this, a pooled figure would hide them. Empty in cards
    made before 2026-11-27.
    """

    def parts(self) -> dict[str, dict[str, Measured]]:
        """Return the parts of the labelled answers, by what they share."""
        parts = {
            "model": self.by_model,
            "task": self.by_task,
            "attack": self.by_attack,
            "model and attack": self.by_model_and_attack,
            "category": self.by_category,
        }
        return {what: measured for what, measured in parts.items() if measured}

    @property
    def unit(self) -> str | None:
        """What intervals and tests are over, in a sentence; None where each answer is to a prompt of its own."""
        if self.all.clusters is None:
            return None
        return (
            f"The {self.all.scored} scored answers are to {self.all.clusters} prompts (near-duplicates count as one): "
            f"intervals and tests are over prompts, since answers to one prompt are no independent evidence."
        )

    def cannot_tell(self) -> list[str]:
        """Return what these labels do not measure, in sentences."""
        positive, negative = NAMES[self.measures]
        found, missed, cleared, excess = self.all.counts.cells
        sentences = []
        if self.positives_of == self.judge:
            sentences.append(
                f"Only answers that {self.judge} calls {positive} were labelled: they measure its precision, and "
                f"cannot tell its recall (sensitivity) or its specificity."
            )
        elif self.positives_of is not None:
            sentences.append(
                f"Only answers that {self.positives_of} calls {positive} were labelled: what it misses is in no "
                f"figure, so sensitivity and specificity are those on its positives alone."
            )
        elif self.all.scored and not missed + cleared:
            sentences.append(
                f"The judge calls every labelled answer {positive}: if answers were labelled because of that, only "
                f"precision is measured."
            )
        if not found + missed:
            sentences.append(f"No labelled answer is {positive}: they cannot tell sensitivity.")
        elif not cleared + excess and self.positives_of != self.judge:
            sentences.append(f"No labelled answer is {negative}: they cannot tell specificity.")
        if len(self.by_model) == 1:
            sentences.append("All answers are of one model: they cannot tell how the judge does on others.")
        if not self.by_attack:
            sentences.append("No attack is named: they cannot tell how the judge does under one.")
        return sentences


NAMES = {"refusal": ("refusal", "compliance"), "harmfulness": ("harmful", "harmless")}
"""The positive and the negative label of each quantity."""


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
