"""Variant specifications: the YAML files in baselines/.

An intervention turns a model into a variant; a baseline is an intervention that another is compared with. Both
are described by the same kind of file, so that any of them can be the one that `--intervention` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.content import yaml_files
from harness.errors import BadInputError, nearest

BASE = "base"


class VariantSpec(BaseModel):
    """How a variant is made from the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", description="how the variant is called")
    description: str = Field(description="one sentence for tables")
    intervention: Literal["none", "system_prompt", "steer", "train_experts"] = Field(
        description="none: the model as it is; system_prompt: told to decline; steer: experts are never routed "
        "to, without training; train_experts: experts are fine-tuned to decline, all else frozen"
    )
    experts: Literal["selected", "random", "all"] | None = Field(
        None, description="which experts steer and train_experts act on; random draws as many per layer"
    )
    system_prompt: str | None = Field(None, min_length=1, description="for system_prompt")
    citation: str | None = Field(None, description="where the idea comes from")

    @model_validator(mode="after")
    def _complete(self) -> VariantSpec:
        needs_experts = self.intervention in ("steer", "train_experts")
        if needs_experts != (self.experts is not None):
            expected = "needs" if needs_experts else "takes no"
            raise ValueError(f"intervention '{self.intervention}' {expected} experts")
        if (self.intervention == "system_prompt") != (self.system_prompt is not None):
            raise ValueError("system_prompt belongs to intervention 'system_prompt', and to no other")
        return self

    @property
    def is_trained(self) -> bool:
        """Whether making the variant takes training."""
        return self.intervention == "train_experts"

    @property
    def uses_selection(self) -> bool:
        """Whether the variant depends on which experts were selected."""
        return self.experts in ("selected", "random")


def list_variants(include: Sequence[Path] = ()) -> dict[str, VariantSpec]:
    """Return all specifications by name; a file of `include` stands in for ours of the same name.

    Raises:
        BadInputError: a file does not fit the schema (names file and field).
    """
    found: dict[str, VariantSpec] = {}
    for path in yaml_files("baselines", include):
        content = _read(path)
        if _is_variant(content):
            spec = _validated(path, content)
            found.setdefault(spec.name, spec)
    return dict(sorted(found.items()))


def find_variant(name: str, include: Sequence[Path] = (), kind: str = "baseline") -> VariantSpec:
    """Return one specification.

    Raises:
        BadInputError: there is none of this name; the nearest is offered.
    """
    known = list_variants(include)
    if name not in known:
        raise BadInputError(f"unknown {kind} '{name}': {nearest(name, known)}")
    return known[name]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInputError(f"{path} is not a YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadInputError(f"{path}: expected fields by name")
    return content


def _is_variant(content: dict[str, Any]) -> bool:
    """Tell a baseline from a task, since one included folder may hold both."""
    return "intervention" in content or "kind" not in content


def _validated(path: Path, content: dict[str, Any]) -> VariantSpec:
    try:
        return VariantSpec.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "file"
        if first["type"] == "extra_forbidden":
            raise BadInputError(f"{path}: unknown field '{field}', {nearest(field, VariantSpec.model_fields)}") from error
        raise BadInputError(f"{path}: field '{field}': {first['msg']}") from error
