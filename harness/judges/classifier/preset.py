"""How a classifier or guard model is asked, and how what it says becomes a label: one YAML file per judge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.judges.preset import Preset
from harness.metrics.rates import AnyLabel

_OF = {"refusal": ("refusal", "compliance"), "harmfulness": ("harmful", "harmless")}


class ClassifierPreset(Preset):
    """One judge, as its YAML file states it."""

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
