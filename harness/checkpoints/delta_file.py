"""A delta on disk: `delta.safetensors` with the experts' values and `delta.json` with what they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

import harness
from harness.base.errors import BadInputError
from harness.base.files import sha256, write_json
from harness.base.schema import read_json_as
from harness.checkpoints.delta import ExpertDelta, load_delta, save_delta
from harness.checkpoints.proof import weights_fingerprint
from harness.models.stored import StoredExperts, UntraceableError

if TYPE_CHECKING:
    from harness.models.load import ModelRef
    from harness.models.moe import MoEModel

TENSORS, CARD = "delta.safetensors", "delta.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)


class DeltaBase(_Part):
    """The model that a delta belongs to."""

    name: str
    """What the user called it."""
    fingerprint: str
    """sha256 over weights, configuration, tokenizer and chat template, as in `run.json`."""
    weights: str
    """sha256 over the weight files alone: what applying demands."""
    experts: str | None
    """sha256 over the replaced experts' own values, in the model's layout: says within seconds that a model is
    another one, and that this version of transformers lays its experts out as the one that trained them did. None
    where the files' layout cannot be followed expert by expert."""


class DeltaCard(_Part):
    """The content of `delta.json`; a run adds the settings, examples and steps of the training."""

    schema_version: Literal[1]
    base: DeltaBase
    model_type: str
    experts: dict[int, list[int]]
    """Expert numbers by true layer index."""
    layout: dict[str, Any]
    """How the values are laid out, as `harness models inspect` prints it, with the shapes of one expert."""
    dtype: str
    parameters: int
    sha256: str
    """Of delta.safetensors."""


def write_delta(
    folder: Path,
    delta: ExpertDelta,
    moe: MoEModel,
    ref: ModelRef,
    details: Mapping[str, Any],
) -> None:
    """Write a delta with its delta.json.

    Args:
        folder: where to.
        delta: the trained experts.
        moe: the model that they were trained in.
        ref: its checkpoint.
        details: more about the training for delta.json.
    """
    save_delta(delta, folder / TENSORS)
    layer = moe.layer(min(delta.experts))
    values = delta.tensors[layer.index]
    card = DeltaCard(
        schema_version=1,
        base=DeltaBase(
            name=ref.name,
            fingerprint=delta.base,
            weights=weights_fingerprint(ref.path),
            experts=digest_of_replaced(ref, delta),
        ),
        model_type=moe.model.config.model_type,
        experts=delta.experts,
        layout={**asdict(layer.layout), "tensors": {n: list(v.shape[1:]) for n, v in values.items()}},
        dtype=str(next(iter(values.values())).dtype).removeprefix("torch."),
        parameters=delta.parameters,
        sha256=sha256(folder / TENSORS),
    )
    write_json(
        folder / CARD,
        {**card.model_dump(mode="json"), "harness_version": harness.__version__, **details},
    )


def digest_of_replaced(ref: ModelRef, delta: ExpertDelta) -> str | None:
    """Return sha256 over the values that a delta replaces in a checkpoint; None where its layout cannot be followed.

    The reason is shown when the delta is applied.
    """
    try:
        return StoredExperts(ref).digest(delta.selected())
    except UntraceableError:
        return None


def find_delta(path: Path) -> Path:
    """Return the folder of a delta: itself, a run's variant folder, or the one that holds the file named.

    Raises:
        BadInputError: there is none; names the variants of a run that have one.
    """
    folder = path.parent if path.name in (TENSORS, CARD) else path
    if not folder.is_dir():
        raise BadInputError(f"no folder '{path}': expected one with {TENSORS} and {CARD}")
    inside = sorted(file.parent.name for file in folder.glob(f"variants/*/{TENSORS}"))
    if inside:
        raise BadInputError(
            f"'{path}' is a run: name one of its variants, {folder / 'variants' / inside[0]} "
            f"(there are {', '.join(inside)})"
        )
    for name in (TENSORS, CARD):
        if not (folder / name).is_file():
            raise BadInputError(f"'{folder}' holds no {name}: expected the delta of a trained variant")
    return folder


def read_delta(path: Path) -> tuple[DeltaCard, ExpertDelta]:
    """Read a delta with its delta.json, both checked against each other.

    Raises:
        BadInputError: a file is missing, incomplete, edited, or not that of a delta.
    """
    folder = find_delta(path)
    card = read_json_as(folder / CARD, DeltaCard)
    digest = sha256(folder / TENSORS)
    if digest != card.sha256:
        raise BadInputError(
            f"{folder / TENSORS} was cut short or changed: its sha256 is {digest[:12]}, {CARD} says {card.sha256[:12]}"
        )
    delta = load_delta(folder / TENSORS)
    if (delta.base, delta.experts) != (card.base.fingerprint, card.experts):
        raise BadInputError(f"{folder / CARD} was changed: base or experts are not those in {TENSORS}")
    return card, delta
