"""The README.md of trained experts: what was done to the base, in place of the base's own card.

One writer serves checkpoints on disk (`harness models apply`, `--save-model`) and what is pushed to the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import harness
from harness.base.documents import parse_yaml
from harness.base.errors import BadInputError
from harness.base.files import read_text, write_text
from harness.base.progress import say
from harness.checkpoints.copying import README
from harness.models.moe import ranges

if TYPE_CHECKING:
    from harness.checkpoints.delta_file import DeltaCard

Relation = Literal["finetune", "adapter"]
"""What the Hub calls a repository beside its base: a whole model, or something to be put into the base."""

LIBRARY = "moe-safety-harness"
LICENCE = ("license", "license_name", "license_link")
# What is true of the changed checkpoint as well.
_KEPT = (*LICENCE, "language", "library_name", "pipeline_tag")
_TRAINING = ("objectives", "learning_rate", "epochs", "batch_size")


@dataclass(frozen=True)
class Pushed:
    """What the card of a repository on the Hub says beside that of a local checkpoint.

    Attributes:
        base_model: the base's id on the Hub; None where it has none, since the Hub refuses other names.
        licence: front matter with the licence.
        relation: whole checkpoints are a finetune of their base.
        sections: Markdown below the table, such as figures and how to load it.
    """

    base_model: str | None
    licence: Mapping[str, Any]
    relation: Relation
    sections: Sequence[str]


def write_model_card(
    out: Path, base: Path, card: DeltaCard, proof: str, left_out: Mapping[str, str], name: str | None = None
) -> None:
    """Write the card of a checkpoint on disk.

    Args:
        out: its folder.
        base: folder of the base, whose licence and language hold for it too.
        card: of the delta that is in it.
        proof: what was checked about the tensors, in a sentence or two.
        left_out: files of the base that it does not have, with the reason.
        name: of the checkpoint; by default the folder's.
    """
    write_text(out / README, model_card(name or out.name, front_matter(base), card, proof, left_out))


def model_card(
    name: str,
    base: Mapping[str, Any],
    card: DeltaCard,
    proof: str,
    left_out: Mapping[str, str],
    pushed: Pushed | None = None,
) -> str:
    """Return the card of a checkpoint, or of a delta.

    Args:
        name: its heading.
        base: front matter of the base's card.
        card: of the delta.
        proof: what was checked about the tensors, in a sentence or two.
        left_out: files of the base that it does not have, with the reason.
        pushed: what the Hub needs.
    """
    import yaml

    about = {key: base[key] for key in _KEPT if key in base}
    base_model: str | None = card.base.name
    relation: Relation = "finetune"
    if pushed is not None:
        base_model, relation = pushed.base_model, pushed.relation
        about |= pushed.licence
    if relation == "adapter":
        # transformers cannot load it, and no widget of the Hub can ask it anything.
        about = {key: value for key, value in about.items() if key != "pipeline_tag"}
        about["library_name"] = LIBRARY
    else:
        about.setdefault("library_name", "transformers")
    if base_model is not None:
        about |= {"base_model": base_model, "base_model_relation": relation}
    about["tags"] = [LIBRARY]
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
    opening = (
        f"`{card.base.name}` with {n_experts} of its experts replaced by trained ones, and nothing else changed"
        if relation == "finetune"
        else f"New values of {n_experts} experts of `{card.base.name}`, which change nothing else of it"
    )
    lines = [
        "---",
        yaml.safe_dump(about, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {name}",
        "",
        f"{opening}: written by moe-safety-harness {harness.__version__}. "
        "What the base's card says of its behaviour does not hold here.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {what} | {_cell(text)} |" for what, text in rows.items()),
    ]
    for section in pushed.sections if pushed is not None else ():
        lines += ["", section]
    if left_out:
        lines += ["", "Files of the base that are not here:", ""]
        lines += [f"- `{path}`: {reason}" for path, reason in left_out.items()]
    return "\n".join(lines) + "\n"


def front_matter(base: Path) -> dict[str, Any]:
    """Return the front matter of a base's card; nothing where it has none, or none that can be read."""
    path = base / README
    if not path.is_file():
        return {}
    try:
        _, opening, rest = read_text(path).partition("---\n")
        front = parse_yaml(rest.partition("\n---")[0], path) if opening else None
    except BadInputError as error:
        say(f"{error}: the new card does not repeat the base's licence")
        return {}
    return dict(front) if isinstance(front, Mapping) else {}


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
