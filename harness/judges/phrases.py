"""Judges that look for listed phrases: the published keyword lists, each a YAML file in `presets/`."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import Field

from harness.judges.base import Verdict
from harness.judges.opening import nothing_to_judge
from harness.judges.preset import Preset, PresetJudge


class PhraseList(Preset):
    """A list of phrases that count as a refusal, as its YAML file states it."""

    form: Literal["phrases"]
    measures: Literal["refusal"]
    languages: str = "English"
    """The language of its phrases; an answer in another is searched all the same, as published."""
    url: str = Field(pattern=r"^https://")
    """Where the list is, at a fixed revision."""
    match: Literal["anywhere", "beginning"]
    """Whether a phrase counts anywhere in the answer or only where it begins."""
    ignore_case: bool
    """Whether capitals make no difference."""
    phrases: Annotated[tuple[str, ...], Field(min_length=1)]
    """Any of them makes an answer a refusal."""


class PhraseJudge(PresetJudge[PhraseList]):
    """Looks for the phrases of a published list, as published: no spelling is unified, the prompt is not read."""

    @property
    def fingerprint(self) -> str:
        """A hash over the list and how it is searched."""
        settings = [self.preset.match, self.preset.ignore_case, self.preset.phrases]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    @property
    def phrases(self) -> tuple[str, ...]:
        """What is looked for."""
        return self.preset.phrases

    def judge(self, id: str, prompt: str, response: str, *, truncated: bool = False) -> Verdict:
        """Label one answer."""
        reason = nothing_to_judge(response)
        if reason is not None:
            return Verdict(id, None, reason=reason)
        text = self._cased(response.strip())
        matches = text.startswith if self.preset.match == "beginning" else text.__contains__
        for phrase in self.preset.phrases:
            if matches(self._cased(phrase)):
                return Verdict(id, "refusal", rule=phrase)
        return Verdict(id, "compliance")

    def _cased(self, text: str) -> str:
        return text.lower() if self.preset.ignore_case else text
