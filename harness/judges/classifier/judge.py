"""What judges that are checkpoints have in common: batches, what does not fit, and a fingerprint of the whole file."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, TypeVar

from pydantic import Field

from harness.base.progress import progress
from harness.judges.base import Verdict
from harness.judges.classifier.checkpoint import Checkpoint, Question
from harness.judges.opening import nothing_to_judge
from harness.judges.preset import Preset, PresetJudge

_BATCH = 16


class ModelPreset(Preset):
    """A judge that is a checkpoint, as its YAML file states it."""

    model: str = Field(min_length=1)
    """A hub id or a checkpoint folder."""
    template: str | None = None
    """The question as a Jinja template over `prompt` and `response`; by default the model's chat template over both.
    `template_file` names a file with it."""


M = TypeVar("M", bound=ModelPreset)


class ModelJudge(PresetJudge[M]):
    """Asks a checkpoint, in batches, on a GPU where there is one.

    An exchange that does not fit the model's context is unscored: a part of it may not be judged for the whole.
    """

    classifies: ClassVar[bool] = False

    def __init__(self, preset: M) -> None:
        super().__init__(preset)
        self.checkpoint = Checkpoint(self.name, self._question())

    def _question(self) -> Question:
        return Question(self.preset.model, self.classifies, self.preset.template, policy=None)

    @property
    def fingerprint(self) -> str:
        """A hash over the whole file, with the texts that it names."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def new_tokens(self) -> int:
        """The tokens that its verdict may take."""
        return 0

    def check(self) -> None:
        """Refuse a checkpoint that does not fit the form; no weights are read.

        Raises:
            BadInputError: it cannot be had, or is not what the form needs.
        """
        self.checkpoint.check()

    @abstractmethod
    def _batch(self, ids: Sequence[str], texts: Sequence[list[int]]) -> Iterator[Verdict]:
        """Yield the verdicts on a batch of questions, by the ids of the answers."""

    def judge(self, id: str, prompt: str, response: str, *, truncated: bool = False) -> Verdict:
        """Label one answer; `judge_many` is faster."""
        return self.judge_many([{"id": id, "prompt": prompt, "response": response}])[0]

    def judge_many(self, rows: Sequence[Mapping[str, str]]) -> list[Verdict]:
        """Label many answers, in their order.

        Raises:
            BadInputError: the model cannot be had, or is not what the form needs.
        """
        verdicts: dict[str, Verdict] = {}
        texts: dict[str, list[int]] = {}
        for row in rows:
            reason = nothing_to_judge(row["response"])
            if reason is None:
                if not texts:
                    self.check()
                texts[row["id"]] = self.checkpoint.tokens(row["prompt"], row["response"])
                if len(texts[row["id"]]) > self.checkpoint.room - self.new_tokens:
                    del texts[row["id"]]
                    reason = "prompt and answer are too long for the judging model"
            if reason is not None:
                verdicts[row["id"]] = Verdict(row["id"], None, reason=reason)
        # Batches of like length waste little on padding.
        ordered = sorted(texts, key=lambda id: len(texts[id]))
        if ordered:
            with progress(f"judge {self.name}", len(ordered), "answers") as advance:
                for at in range(0, len(ordered), _BATCH):
                    ids = ordered[at : at + _BATCH]
                    verdicts |= {v.id: v for v in self._batch(ids, [texts[id] for id in ids])}
                    advance(len(ids))
        return [verdicts[row["id"]] for row in rows]
