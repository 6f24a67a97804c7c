"""A judge's card: how its verdicts compare with people's labels, kept so that every rate can show it.

Cards of our own judges are in `cards/`. What a user measures goes into a folder of the user's and replaces
ours; a run keeps a copy of each card it used.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from harness.base.errors import BadInputError
from harness.base.files import write_json
from harness.base.schema import read_json_as
from harness.metrics.interval import Interval
from harness.metrics.judged import Confusion, errors_differ

SHIPPED = Path(__file__).resolve().parent / "cards"
CARDS_FOLDER = "HARNESS_JUDGE_CARDS"
# Judges whose errors differ between models more than chance explains have no one error to correct for.
ERRORS_DIFFER = 0.01


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


def user_folder() -> Path:
    """Return where a user's cards are kept: HARNESS_JUDGE_CARDS, or a folder in the user's data folder."""
    named = os.environ.get(CARDS_FOLDER)
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "moe-safety-harness" / "judges"


def find_card(name: str) -> Card | None:
    """Return a judge's card, the user's before the shipped one; None where it was never measured."""
    for folder in (user_folder(), SHIPPED):
        path = folder / f"{name}.json"
        if path.is_file():
            return read_card(path)
    return None


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


def write_card(folder: Path, card: Card) -> Path:
    """Write a card as a whole file and return its path."""
    path = folder / f"{card.judge}.json"
    write_json(path, card.model_dump(mode="json"))
    return path


def why_not_fitting(
    card: Card | None, judge: str, fingerprint: str, model: str, lengths: list[int]
) -> str | None:
    """Return why a card says nothing about a variant's answers, or None where it does.

    Args:
        card: the judge's.
        judge: its name.
        fingerprint: of the judge that labelled the answers.
        model: whose answers they are.
        lengths: words of each answer.
    """
    if card is None:
        return f"{judge} was not measured on people's labels"
    if card.fingerprint != fingerprint:
        return f"the card of {judge} is of another version of it"
    counts = card.all.counts
    sensitivity, specificity = counts.sensitivity, counts.specificity
    if sensitivity is None or specificity is None:
        return f"the card of {judge} lacks refusals or compliances"
    if sensitivity.value + specificity.value <= 1:
        return f"by its card, {judge} does no better than chance"
    if model not in card.by_model and (reason := _errors_differ(card)):
        return reason
    if card.words is not None and lengths:
        middle = sorted(lengths)[len(lengths) // 2]
        low, high = card.words
        if not low <= middle <= high:
            return (
                f"half of the answers have {middle} words or more, nine tenths of those on the card of {judge} "
                f"have {low:.0f} to {high:.0f}"
            )
    return None


def confusion_for(card: Card, model: str) -> Confusion:
    """Return the counts that correct a model's rates: its own where the card has both kinds of it, else all."""
    own = card.by_model.get(model)
    if own is not None and own.counts.refusals and own.counts.compliances:
        return own.counts
    return card.all.counts


def _errors_differ(card: Card) -> str | None:
    parts = [measured.counts for measured in card.by_model.values()]
    p_value = errors_differ(parts)
    if p_value is None or p_value >= ERRORS_DIFFER:
        return None
    ranges = []
    for what in ("sensitivity", "specificity"):
        values = [interval.value for part in parts if (interval := getattr(part, what)) is not None]
        ranges.append(f"{what} {min(values):.2f} to {max(values):.2f}")
    return f"the errors of {card.judge} differ between the models on its card ({', '.join(ranges)})"
