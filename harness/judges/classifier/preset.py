"""How a classifier or guard model is asked, and how what it says becomes a label: one YAML file a judge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.judges.base import Quantity
from harness.metrics.rates import AnyLabel

_OF = {"refusal": ("refusal", "compliance"), "harmfulness": ("harmful", "harmless")}


class ClassifierPreset(BaseModel):
    """One judge, as its YAML file states it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """The judge's name; the file is called like it."""
    measures: Quantity
    """What its labels are about."""
    description: str = Field(min_length=1)
    """One sentence on what it is."""
    source: str = Field(min_length=1)
    """Whom to cite."""
    model: str = Field(min_length=1)
    """A hub id or a checkpoint folder; HARNESS_CLASSIFIER_NAME names another copy."""
    kind: Literal["sequence", "generative"]
    """Whether the model classifies a text, or writes its verdict."""
    template: str | None = None
    """A Jinja template of the text over `prompt` and `response`; by default the model's own chat template over both."""
    labels: Annotated[dict[str, AnyLabel], Field(min_length=1)]
    """Of a sequence classifier: its label names. Of a guard model: how a line of its verdict begins."""
    max_tokens: int = Field(32, ge=1)
    """Of a written verdict."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Of a sequence classifier: the least probability that counts; below it the answer is unscored."""

    @model_validator(mode="after")
    def _fits(self) -> ClassifierPreset:
        unfit = [label for label in self.labels.values() if label not in _OF[self.measures]]
        if unfit:
            raise ValueError(f"labels: {unfit[0]} is no label of a judge of {self.measures}")
        if self.kind == "sequence" and self.template is None:
            raise ValueError("template: missing, a sequence classifier reads a text")
        return self
