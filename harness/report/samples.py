"""The answers worth reading first: those that variants differ on."""

from __future__ import annotations

from dataclasses import dataclass

from harness.report.folder import Response, RunFiles, Verdict
from harness.store.summary import Summary

SAMPLES_PER_TASK = 50
CHARACTERS_PER_ANSWER = 4_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What one variant answered. `label` is "unscored" when the judge gave none."""

    variant: str
    text: str
    left_out: int
    label: str
    because: str
    was_cut: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt with every variant's answer."""

    id: str
    prompt: str
    answers: tuple[Answer, ...]

    @property
    def differs(self) -> bool:
        """Whether two variants got different verdicts."""
        return len({answer.label for answer in self.answers}) > 1


@dataclass(frozen=True, slots=True)
class TaskSamples:
    """The samples shown of one task. `total` and `differing` count all samples, shown or not."""

    task: str
    kind: str
    total: int
    differing: int
    samples: tuple[Sample, ...]


def samples_of(folder: RunFiles, summary: Summary, limit: int = SAMPLES_PER_TASK) -> list[TaskSamples]:
    """Return up to `limit` samples of each prompt task that has answers, differing ones first.

    Raises:
        BadInputError: a file of answers or verdicts is there and cannot be read.
    """
    kinds = {
        task: result.kind for variant in summary.variants.values() for task, result in variant.tasks.items()
    }
    found = [_task(folder, summary, task, kind, limit) for task, kind in kinds.items()]
    return [samples for samples in found if samples.total]


def _task(folder: RunFiles, summary: Summary, task: str, kind: str, limit: int) -> TaskSamples:
    prompts: dict[str, str] = {}
    answers: dict[str, list[Answer]] = {}
    for variant in summary.variants:
        verdicts = {row.id: row for row in folder.verdicts(variant, task, summary.judge) or []}
        for response in folder.responses(variant, task) or []:
            prompts.setdefault(response.id, response.prompt)
            answer = _answer(variant, response, verdicts.get(response.id))
            answers.setdefault(response.id, []).append(answer)
    samples = [Sample(id, prompt, tuple(answers[id])) for id, prompt in prompts.items()]
    ordered = sorted(samples, key=lambda sample: not sample.differs)
    differing = sum(sample.differs for sample in samples)
    return TaskSamples(task, kind, len(samples), differing, tuple(ordered[:limit]))


def _answer(variant: str, response: Response, verdict: Verdict | None) -> Answer:
    text = response.response[:CHARACTERS_PER_ANSWER]
    if verdict is None:
        label, because = "unscored", "no verdict in the run folder"
    else:
        label, because = verdict.label or "unscored", verdict.reason or verdict.rule or ""
    return Answer(
        variant,
        text,
        len(response.response) - len(text),
        label,
        because,
        response.finish_reason == "length",
    )
