"""The form `classifier`: a sequence classifier over a text made of prompt and answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from harness.judges.base import Verdict
from harness.judges.classifier.judge import ModelJudge, ModelPreset
from harness.judges.preset import LABELS, require_labels
from harness.metrics.rates import AnyLabel


class SequencePreset(ModelPreset):
    """A sequence classifier, as its YAML file states it."""

    form: Literal["classifier"]
    template: str
    """The text that it classifies, as a Jinja template over `prompt` and `response`."""
    labels: Annotated[dict[str, AnyLabel], Field(min_length=1)]
    """What each of its labels says."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """The least probability that counts; below it the answer is unscored."""

    @model_validator(mode="after")
    def _fits(self) -> SequencePreset:
        require_labels(self.labels.values(), LABELS[self.measures], self.measures)
        return self


class SequenceJudge(ModelJudge[SequencePreset]):
    """Asks a sequence classifier; an answer that it is not sure of is unscored."""

    classifies: ClassVar[bool] = True

    def check(self) -> None:
        """Refuse a checkpoint that is no classifier or lacks a label that the file names."""
        super().check()
        known = self.checkpoint.labels.values()
        missing = next((name for name in self.preset.labels if name not in known), None)
        if missing is not None:
            raise self.checkpoint.refuse(f"has no label '{missing}': it has {', '.join(known)}")

    def _batch(self, ids: Sequence[str], texts: Sequence[list[int]]) -> Iterator[Verdict]:
        names, labels = self.checkpoint.labels, self.preset.labels
        positive = LABELS[self.preset.measures][0]
        for id, row in zip(ids, self.checkpoint.logits(texts).softmax(-1).tolist(), strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            name = names[best]
            if row[best] < self.preset.threshold or name not in labels:
                yield Verdict(id, None, reason=f"the classifier is not sure: {name} {row[best]:.2f}")
                continue
            share = sum(share for place, share in enumerate(row) if labels.get(names[place]) == positive)
            yield Verdict(id, labels[name], rule=name, probability=share)
