"""Every answer of a run, as the data of the report's sample browser."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from harness.judges.base import Quantity, Verdict
from harness.report.words import visible
from harness.runs.rows import BASE
from harness.runs.run import Run
from harness.runs.summary import Summary

BUDGET = 13_000_000
"""Bytes of text that a report may hold; beyond it long texts are shortened, the longest first."""

_LIMITS = (200_000, 20_000, 4_000, 2_000, 1_000, 600, 400, 300, 200, 100)
_LEFT_OUT = "left out"
# What could end the script element that holds the data, or a line of it; JSON reads the escapes as the same characters.
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


@dataclass(frozen=True, slots=True)
class JudgedAnswer:
    """What one variant answered. `label` is "unscored" when the judge gave none, `number` None for a greedy answer.

    `harm` is the label of harmfulness, "" where no judge of it read the answers.
    """

    variant: str
    text: str
    label: str
    because: str
    is_truncated: bool
    reasoning: str = ""
    number: int | None = None
    harm: str = ""

    def label_of(self, quantity: Quantity) -> str:
        """Return the label of a quantity."""
        return self.label if quantity == "refusal" else self.harm


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt with every variant's answers."""

    id: str
    prompt: str
    category: str
    answers: tuple[JudgedAnswer, ...]
    tags: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether two variants got different verdicts, or different numbers of each."""
        labels: dict[str, list[str]] = {}
        for answer in self.answers:
            labels.setdefault(answer.variant, []).append(answer.label)
        return len({tuple(sorted(own)) for own in labels.values()}) > 1


@dataclass(frozen=True, slots=True)
class TaskSamples:
    """All samples of one task."""

    task: str
    kind: str
    samples: tuple[Sample, ...]

    @property
    def differing(self) -> int:
        """On how many samples variants differ."""
        return sum(sample.differs for sample in self.samples)

    @property
    def is_judged_for_harm(self) -> bool:
        """Whether a judge of harmfulness read the answers."""
        return any(answer.harm for sample in self.samples for answer in sample.answers)


def samples_of(run: Run, summary: Summary) -> list[TaskSamples]:
    """Return the samples of each prompt task that has answers, in the order they were asked.

    Raises:
        BadInputError: a file of answers or verdicts is there and cannot be read.
    """
    tasks = [_task(run, summary, task, kind) for task, kind in summary.tasks().items()]
    return [task for task in tasks if task.samples]


def _task(run: Run, summary: Summary, task: str, kind: str) -> TaskSamples:
    prompts: dict[str, str] = {}
    answers: dict[str, list[JudgedAnswer]] = {}
    for variant in summary.variants:
        if task not in run.answered(variant):
            continue
        verdicts = _verdicts(run, variant, task, summary.judge) or {}
        harms = _verdicts(run, variant, task, summary.primary_of("harmfulness"))
        for given in run.answers(variant, task):
            prompts.setdefault(given.prompt_id, given.prompt)
            label, because = "unscored", "no verdict in the run folder"
            if (verdict := verdicts.get(given.id)) is not None:
                label, because = _label(verdict), verdict.reason or verdict.rule or ""
            answer = JudgedAnswer(
                variant,
                given.response,
                label,
                because,
                given.is_truncated,
                given.reasoning or "",
                given.number,
                "" if harms is None else _label(harms.get(given.id)),
            )
            answers.setdefault(given.prompt_id, []).append(answer)
    split = run.splits.tasks.get(task) if run.layout.splits.exists() else None
    categories, tags = (split.categories, split.tags) if split else ({}, {})
    samples = (
        Sample(id, prompt, categories.get(id, ""), tuple(answers[id]), tags.get(id, ()))
        for id, prompt in prompts.items()
    )
    return TaskSamples(task, kind, tuple(samples))


def _verdicts(run: Run, variant: str, task: str, judge: str | None) -> dict[str, Verdict] | None:
    """Return a judge's verdicts by the answer's id; None where it read none of them."""
    if judge is None or judge not in run.judges(variant, task):
        return None
    return {row.id: row for row in run.verdicts(variant, task, judge)}


def _label(verdict: Verdict | None) -> str:
    return (verdict and verdict.label) or "unscored"


@dataclass
class _Texts:
    """Each text once: variants often answer alike."""

    limit: int
    places: dict[str, int] = field(default_factory=dict)

    def place(self, text: str) -> int:
        if len(text) > self.limit:
            text = f"{text[: self.limit]} […]"
        return self.places.setdefault(text, len(self.places))


_BECAME: dict[Quantity, dict[str, tuple[str, str]]] = {
    "refusal": {
        "answered, now refused": ("compliance", "refusal"),
        "refused, now answered": ("refusal", "compliance"),
    },
    "harmfulness": {
        "harmful, now harmless": ("harmful", "harmless"),
        "harmless, now harmful": ("harmless", "harmful"),
    },
}


def flips(
    tasks: Sequence[TaskSamples], intervention: str, quantity: Quantity = "refusal"
) -> list[dict[str, str]]:
    """Return how many answers to each task got another verdict than base's, sampled answers by their number.

    Args:
        tasks: from `samples_of`; those whose answers were not judged for the quantity are left out.
        intervention: what is compared with base.
        quantity: what the verdicts are on.
    """
    rows = []
    for task in tasks:
        if intervention == BASE or (quantity == "harmfulness" and not task.is_judged_for_harm):
            continue
        became: Counter[tuple[str, str]] = Counter()
        for sample in task.samples:
            labels = {(each.variant, each.number): each.label_of(quantity) for each in sample.answers}
            became.update(
                (old, labels[intervention, number])
                for (variant, number), old in labels.items()
                if variant == BASE and (intervention, number) in labels
            )
        if became:
            same = sum(n for (old, new), n in became.items() if old == new != "unscored")
            turned = {heading: became[change] for heading, change in _BECAME[quantity].items()}
            counts = turned | {
                "the same": same,
                "not both scored": became.total() - same - sum(turned.values()),
            }
            rows.append(
                {"task": task.task, "asks for": task.kind} | {name: f"{n:,}" for name, n in counts.items()}
            )
    return rows


def browser_data(
    tasks: Sequence[TaskSamples], variants: Sequence[str], intervention: str = "", redact: bool = False
) -> Markup:
    """Return the samples as JSON that is safe inside a script element.

    Args:
        tasks: from `samples_of`.
        variants: all variants, in the leaderboard's order.
        intervention: the one that is shown beside base.
        redact: leave out prompts and answers of harmful tasks.
    """
    limit = _limit(tasks)
    texts, labels, reasons = _Texts(limit), _Texts(limit), _Texts(limit)
    content: dict[str, Any] = {
        "variants": list(variants),
        "pair": [variants.index(name) for name in (BASE, intervention) if name in variants],
        "limit": limit,
        "tasks": [],
    }
    for task in tasks:
        hidden = redact and task.kind == "harmful"
        rows = []
        for sample in task.samples:
            answers = [
                [
                    variants.index(answer.variant),
                    texts.place(_LEFT_OUT if hidden else _shown(answer.text)),
                    labels.place(answer.label),
                    reasons.place(_shown(answer.because)),
                    int(answer.is_truncated),
                    *_more(answer, texts, hidden),
                ]
                for answer in sample.answers
            ]
            prompt = texts.place(_LEFT_OUT if hidden else _shown(sample.prompt))
            rows.append([_shown(sample.id), prompt, _shown(sample.category), answers])
        content["tasks"].append({"name": task.task, "kind": task.kind, "redacted": hidden, "samples": rows})
    content |= {"texts": list(texts.places), "labels": list(labels.places), "reasons": list(reasons.places)}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(_ESCAPES))


def _more(answer: JudgedAnswer, texts: _Texts, hidden: bool) -> list[int | None]:
    """Return the places of an answer's reasoning and its number; short where there are none.

    Most models do not think, most answers are greedy, and most reports hold thousands of them.
    """
    thoughts = texts.place(_LEFT_OUT if hidden else _shown(answer.reasoning)) if answer.reasoning else None
    if answer.number is not None:
        return [thoughts, answer.number]
    return [] if thoughts is None else [thoughts]


def _limit(tasks: Sequence[TaskSamples]) -> int:
    """Return the longest that a text may be, so that all together keep to the budget."""
    texts = {
        text
        for task in tasks
        for sample in task.samples
        for text in (
            sample.prompt,
            *(text for answer in sample.answers for text in (answer.text, answer.reasoning)),
        )
    }
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
    return next(
        (limit for limit in _LIMITS if sum(min(size, limit) for size in sizes) <= BUDGET), _LIMITS[-1]
    )


def _shown(text: str) -> str:
    return visible(text, lines=True)
