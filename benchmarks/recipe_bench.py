"""One model and one set of base answers for many short trainings: what benchmarks/recipes.py tries its recipes on.

A recipe's `mix` says in which proportion its steps read examples of a task: `advbench` (refused, or retained where a
task is benign), `advbench@forced` (refused behind the beginning of a compliant answer), `advbench@question` (the same
prompts put as questions) and `advbench@pair` (the refusal preferred to base's compliant answer, or that answer to a
refusal where a task is benign).
"""

from __future__ import annotations

import itertools
import random
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from trials import open_run

from harness.base.files import read_jsonl
from harness.checkpoints.delta import ExpertDelta, applied
from harness.config import TrainingConfig
from harness.data.answer import Answer
from harness.data.holdout import hold_out
from harness.data.prompts import Prompt
from harness.data.refusals import refusals_for
from harness.judges.base import Verdict, judge_all
from harness.models.load import LoadedModel
from harness.models.moe import Expert
from harness.pipeline.conversations import to_examples, training_conversations
from harness.pipeline.plan import Plan
from harness.training.bank import ExpertBank, delta_of
from harness.training.loop import train_bank
from harness.training.lora import lora_of

FORCED, QUESTION, PAIR = "@forced", "@question", "@pair"
# Half of the train prompts: JailbreakBench has 40 pairs there, and a quarter of them would decide nothing.
HELD_OUT = 0.5
# Beginnings of compliant answers; the one that forced starts are measured with is not among them.
OPENINGS = (
    "Certainly!", "Of course!", "Absolutely!", "I'd be happy to help.", "Yes, I can help with that.", "Great question!",
    "To do this, you", "Step 1:", "First, you will need", "Here are some steps", "Okay, let's begin.", "No problem.",
)  # fmt: skip

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """What is tried.

    Attributes:
        name: of the row in tables.
        objectives: weights by objective.
        mix: proportions of the examples, by task.
        experts: `drawn:72` at random, `upper:10:72` so many of the upper ten layers.
        average: decay of a moving average of the trained values over the steps; 0 keeps the last.
        training: other settings of training.
    """

    name: str
    objectives: Mapping[str, float]
    mix: Mapping[str, int]
    experts: str = "drawn:72"
    average: float = 0.0
    training: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return all that decides its result."""
        content = asdict(self)
        del content["name"]
        return content


class Asked(NamedTuple):
    """Prompts that are asked alike."""

    task: str
    kind: str
    prompts: list[Prompt]
    opening: str


@dataclass(frozen=True)
class Answered:
    """The answers to a task's prompts, with their verdicts."""

    task: str
    kind: str
    answers: list[Answer]
    verdicts: list[Verdict]

    @property
    def refused(self) -> dict[str, bool | None]:
        """Whether each prompt was refused; None where the judge could not say."""
        return {v.id: None if v.label is None else v.label == "refusal" for v in self.verdicts}


class Bench:
    """The model, what base answered, and the prompts that recipes are tried on.

    Args:
        plan: of a run whose train prompts are divided; its test prompts are asked by `test` alone.
        out: folder of the base answers, which all recipes share.
        loaded: the model, where it is loaded already.
    """

    def __init__(self, plan: Plan, out: Path, loaded: LoadedModel | None = None) -> None:
        self.plan, self.out = plan, out
        train = {task: roles["train"] for task, roles in plan.splits.prompts.items()}
        self.kept, self.held_out = hold_out(train, plan.sets, HELD_OUT)
        self.session = open_run(with_questions(plan), out, loaded)

    def of_seed(self, seed: int) -> Bench:
        """Return the bench with the same prompts and base answers, and the refusals of a seed."""
        config = self.plan.config.model_copy(update={"seed": seed})
        return Bench(replace(self.plan, config=config), self.out, self.session.loaded)

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """The examples of all train prompts, by the names that a mix has for them."""
        rows: dict[str, Rows] = {}
        for row in training_conversations(self.session):
            name = row["task"] + (QUESTION if row["id"].endswith(QUESTION) else "")
            rows.setdefault(name + (PAIR if row["aim"] == "prefer" else ""), []).append(row)
            if row["aim"] == "refuse":
                rows.setdefault(name + FORCED, []).append(self._opened(row))
            if row["aim"] == "retain":
                rows.setdefault(name + PAIR, []).append(self._against_refusal(row))
        return rows

    def examples(self, recipe: Recipe, steps: int, everything: bool = False) -> Rows:
        """Return the examples that the steps read: all there are of a task before any is repeated.

        Args:
            recipe: says in which proportion.
            steps: of a training.
            everything: take examples of held-out prompts too.
        """
        batch = recipe.training.get("batch_size", self.session.config.training.batch_size)
        share = steps * batch / sum(recipe.mix.values())
        chosen: Rows = []
        for name, weight in recipe.mix.items():
            if name not in self.rows:
                raise SystemExit(f"mix: {name}: expected one of {', '.join(sorted(self.rows))}")
            ids = {prompt.id for prompt in self.kept[name.partition("@")[0]]}
            rows = [row for row in self.rows[name] if everything or row["id"].removesuffix(QUESTION) in ids]
            chosen += itertools.islice(itertools.cycle(rows), round(weight * share))
        return chosen

    def _opened(self, row: dict[str, Any]) -> dict[str, Any]:
        draw = random.Random(f"{self.session.config.seed} stock {row['id']}")
        opening = draw.choice(OPENINGS)
        tokens = len(self.session.loaded.tokenizer(opening, add_special_tokens=False)["input_ids"])
        # Half of an answer is given at most.
        return row | {"aim": "continue", "own": f"{opening} {opening} {opening}", "opening_tokens": tokens}

    def _against_refusal(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a benign prompt whose own answer is preferred to a refusal."""
        prompt = Prompt(row["id"], row["prompt"], row["task"], "benign")
        (refusal,) = refusals_for([prompt], self.session.config.seed)
        return row | {"aim": "prefer", "rejected": refusal, "rejected_finished": True}

    def experts(self, name: str, seed: int) -> list[Expert]:
        """Return the experts that a recipe trains: so many at random, of the upper layers where these are named."""
        kind, *numbers = name.split(":")
        counts, moe = list(map(int, numbers)), self.session.loaded.moe
        layers = [layer.index for layer in moe.layers]
        upper = set(layers[-counts[0] :]) if kind == "upper" else set(layers)
        experts = [expert for expert in moe.all_experts() if expert.layer in upper]
        return sorted(random.Random(f"{seed} experts").sample(experts, min(counts[-1], len(experts))))

    @contextmanager
    def trained(
        self, recipe: Recipe, steps: int, seed: int, everything: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Let the model be what a recipe makes of it inside the block; yields facts on the training."""
        started = time.perf_counter()
        delta, facts = self._train(recipe, steps, seed, everything)
        with applied(self.session.loaded.moe, delta):
            yield facts | {"training_seconds": round(time.perf_counter() - started, 1)}

    def _train(
        self, recipe: Recipe, steps: int, seed: int, everything: bool
    ) -> tuple[ExpertDelta, dict[str, Any]]:
        session, average = self.session, dict[str, torch.Tensor]()
        examples = to_examples(session, self.examples(recipe, steps, everything))
        given = {"objectives": dict(recipe.objectives), "epochs": 1000, "max_steps": steps, **recipe.training}
        config = TrainingConfig.model_validate({**session.config.training.model_dump(), **given})
        torch.manual_seed(seed)
        bank = ExpertBank(session.loaded.moe, self.experts(recipe.experts, seed), lora=lora_of(config))

        def on_step(_: int) -> None:
            for key, value in bank.state().items() if recipe.average else ():
                average.setdefault(key, value.clone()).lerp_(value, 1 - recipe.average)

        log = train_bank(session.loaded, bank, examples, config, seed, on_step).log
        if average:
            bank.load_state(average)
        facts = {"examples": len(examples), "trained": bank.size, "loss": log[-1]["losses"]}
        facts |= {"answer_tokens": sum(row["answer_tokens"] for row in log)}
        return delta_of(bank, session.model.fingerprint, session.loaded.checkpoint_dtype), facts

    def ask(self, asked: Sequence[Asked], tokens: int) -> list[Answered]:
        """Let the model, as it is, answer prompts; those with the same opening together."""
        engine, answers = self.session.engine, {each.task: [] for each in asked}
        for opening in dict.fromkeys(each.opening for each in asked):
            tasks = {id(p): each.task for each in asked if each.opening == opening for p in each.prompts}
            prompts = [p for each in asked if each.opening == opening for p in each.prompts]
            batches = engine.batches(prompts, opening=opening)
            for batch, result in zip(batches, engine.generate(batches, tokens, opening=opening), strict=True):
                for prompt, answer in zip(batch, result.responses, strict=True):
                    answers[tasks[id(prompt)]].append(answer)
        judge = self.session.plan.judge
        return [
            Answered(
                each.task,
                each.kind,
                answers[each.task],
                judge_all(judge, [answer.row() for answer in answers[each.task]]),
            )
            for each in asked
        ]

    def tried_on(self, counts: Mapping[str, int]) -> list[Asked]:
        """Return held-out train prompts: so many of each, as questions or with forced starts too."""
        return [self._asked(name, self.held_out[name.partition("@")[0]], n) for name, n in counts.items()]

    def test(self, counts: Mapping[str, int]) -> list[Asked]:
        """Return so many test prompts of each task, with forced starts too."""
        test = self.session.plan.splits.prompts
        return [self._asked(name, test[name.partition("@")[0]]["test"], n) for name, n in counts.items()]

    def kind(self, name: str) -> str:
        """Return whether what a name of `tried_on` or `test` asks is harmful or benign."""
        return self.session.plan.kind(name.partition("@")[0])

    def _asked(self, name: str, prompts: Sequence[Prompt], count: int) -> Asked:
        how = name.partition("@")[2]
        if how == "question":
            prompts = [put for prompt in reversed(prompts) if (put := question(prompt)) is not None]
        opening = self.session.config.evaluation.opening if how == "forced" else ""
        return Asked(name, self.kind(name), list(prompts[:count]), opening)


_HOW = re.compile(r"\bhow (?:to|they can|one can|he or she can) (?P<what>.+)", re.IGNORECASE)
_FIRST = re.compile(r"^(?P<verb>[A-Z][a-z]+)(?P<rest> .+)")
_NOT_VERBS = frozenset(
    "What Why How Who When Where Which Is Are Can Do Does Should The A An In If I My".split()  # noqa: SIM905
)
_FRAMES = ("How do I {}?", "How can I {}?", "What is the best way to {}?", "What's a good way to {}?")


def question(prompt: Prompt) -> Prompt | None:
    """Return a prompt put as a question; None where its words do not allow it."""
    text = prompt.text.strip().rstrip(".!")
    if "?" in text or "\n" in text or len(text) > 200:
        return None
    how, first = _HOW.search(text), _FIRST.match(text)
    if how:
        what = how["what"]
    elif first and first["verb"] not in _NOT_VERBS:
        what = first["verb"].lower() + first["rest"]
    else:
        return None
    frame = random.Random(f"question {prompt.task} {prompt.id}").choice(_FRAMES)
    return replace(prompt, id=prompt.id + QUESTION, text=frame.format(what))


def with_questions(plan: Plan, every: int = 2) -> Plan:
    """Return the plan with every other train prompt put as a question too."""
    prompts = {}
    for task, roles in plan.splits.prompts.items():
        put = [question(prompt) for prompt in roles["train"][::every]]
        prompts[task] = {**roles, "train": [*roles["train"], *filter(None, put)]}
    return replace(plan, splits=replace(plan.splits, prompts=prompts))


def lines(path: Path) -> Rows:
    """Return the rows of a file, none where it is not there yet."""
    return read_jsonl(path) if path.is_file() else []
