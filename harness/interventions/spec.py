"""Variant specifications: the YAML files in baselines/.

An intervention turns a model into a variant; a baseline is an intervention that another is compared with. Both
are described by the same kind of file, so that any of them can be the one that `--intervention` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.base.content import yaml_files_by_name
from harness.base.errors import BadInputError, nearest
from harness.base.schema import read_named_yaml

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
        BadInputError: a file does not follow the schema, or is not called like its baseline.
    """
    return {
        name: read_named_yaml(path, VariantSpec)
        for name, path in sorted(yaml_files_by_name("baselines", include).items())
    }


def find_variant(name: str, include: Sequence[Path] = (), kind: str = "baseline") -> VariantSpec:
    """Return one specification.

    Raises:
        BadInputError: there is none of this name (the nearest is offered), or its file is wrong.
    """
    files = yaml_files_by_name("baselines", include)
    if name not in files:
        raise BadInputError(f"unknown {kind} '{name}': {nearest(name, files)}")
    return read_named_yaml(files[name], VariantSpec)
