"""The README.md of a checkpoint with trained experts: what was done to its base, in place of the base's own card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.base.documents import parse_yaml
from harness.base.errors import BadInputError
from harness.base.files import read_text, write_text
from harness.base.progress import say
from harness.checkpoints.copying import README
from harness.models.moe import ranges

if TYPE_CHECKING:
    from harness.checkpoints.delta_file import DeltaCard

# What is true of the changed checkpoint as well.
_KEPT = ("license", "license_name", "license_link", "language", "library_name", "pipeline_tag")
_TRAINING = ("objectives", "learning_rate", "epochs", "batch_size")


def write_model_card(
    out: Path, base: Path, card: DeltaCard, proof: str, left_out: Mapping[str, str], name: str | None = None
) -> None:
    """Write the card of a checkpoint.

    Args:
        out: its folder.
        base: folder of the base, whose licence and language hold for it too.
        card: of the delta that is in it.
        proof: what was checked about the tensors, in a sentence or two.
        left_out: files of the base that it does not have, with the reason.
        name: of the checkpoint; by default the folder's.
    """
    import yaml

    about = {**_kept(base), "base_model": card.base.name, "tags": ["moe-safety-harness"]}
    n_experts = sum(map(len, card.experts.values()))
    rows = {
        "base": f"`{card.base.name}` ({card.model_type}), weights of sha256 `{card.base.weights}`",
        "delta": f"`delta.safetensors` of sha256 `{card.sha256}`",
        "experts": f"{n_experts}: "
        + "; ".join(
            f"layer {layer}: {ranges(sorted(numbers))}" for layer, numbers in sorted(card.experts.items())
        ),
        "parameters": f"{card.parameters:,} of {card.dtype}",
        **_training(card.model_extra or {}),
        "proof": proof,
    }
    lines = [
        "---",
        yaml.safe_dump(about, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {name or out.name}",
        "",
        f"`{card.base.name}` with {n_experts} of its experts replaced by trained ones, and nothing else changed: "
        f"written by moe-safety-harness {harness.__version__}. "
        "What the base's card says of its behaviour does not hold here.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {what} | {_cell(text)} |" for what, text in rows.items()),
    ]
    if left_out:
        lines += ["", "Files of the base that are not here:", ""]
        lines += [f"- `{path}`: {reason}" for path, reason in left_out.items()]
    write_text(out / README, "\n".join(lines) + "\n")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _training(details: Mapping[str, Any]) -> dict[str, str]:
    """Return how the experts were trained, as far as delta.json says."""
    settings = details.get("training")
    named = (
        {key: settings[key] for key in _TRAINING if key in settings} if isinstance(settings, Mapping) else {}
    )
    named |= {key: details[key] for key in ("steps", "examples", "seed") if details.get(key) is not None}
    if not named:
        return {}
    return {"training": ", ".join(f"{key} {json.dumps(value)}" for key, value in named.items())}


def _kept(base: Path) -> dict[str, Any]:
    path = base / README
    if not path.is_file():
        return {}
    try:
        _, opening, rest = read_text(path).partition("---\n")
        front = parse_yaml(rest.partition("\n---")[0], path) if opening else None
    except BadInputError as error:
        say(f"{error}: the new card does not repeat the base's licence")
        return {}
    return {key: front[key] for key in _KEPT if key in front} if isinstance(front, Mapping) else {}
