"""Trials of training settings: train the selected experts, then answer prompts that were not trained on.

By default those are a held-out part of the train split, in whole groups of near-duplicates: the test split plays no
part.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.base.files import read_jsonl
from harness.config import make_config
from harness.data.answer import Answer
from harness.data.holdout import hold_out
from harness.interventions.base import Prepared
from harness.judges.base import Verdict, judge_all
from harness.metrics.rates import rate
from harness.models.load import LoadedModel
from harness.pipeline import pipeline
from harness.pipeline.capture import capture_routing
from harness.pipeline.conversations import training_conversations
from harness.pipeline.plan import Plan, make_plan
from harness.pipeline.select import select
from harness.pipeline.session import Session
from harness.pipeline.train import train, trained

HELD_OUT = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every trial takes."""
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tasks", default=None)
    parser.add_argument("--data-dir", type=Path, action="append", default=[])
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--set", action="append", default=[], help="settings of all trials")


def plan_of(arguments: argparse.Namespace, flags: Mapping[str, Any], assignments: Sequence[str]) -> Plan:
    """Return the plan of a trial, whose test prompts are the run's own."""
    given: dict[str, Any] = {"model": arguments.model, "data_dir": arguments.data_dir, **flags}
    if arguments.limit:
        given["limit"] = arguments.limit
    if arguments.tasks:
        given["tasks"] = arguments.tasks.split(",")
    return make_plan(make_config(given, None, [*arguments.set, *assignments]))


def held_out_apart(plan: Plan) -> Plan:
    """Return the plan without a part of the train prompts, which stand in place of the test prompts."""
    train_prompts = {task: roles["train"] for task, roles in plan.splits.prompts.items()}
    kept, held_out = hold_out(train_prompts, plan.sets, HELD_OUT)
    prompts = {
        task: {"identify": roles["identify"], "train": kept[task], "test": held_out[task]}
        for task, roles in plan.splits.prompts.items()
    }
    return dataclasses.replace(plan, splits=dataclasses.replace(plan.splits, prompts=prompts))


@dataclasses.dataclass
class Trial:
    """A trained intervention.

    Attributes:
        session: its run. All trials of one folder share what the base model answered.
        made: the intervention, with the trained experts.
        log: a row for each optimizer step.
        examples: how many were learnt from.
        seconds: that the training took, or 0 where an earlier call did it.
    """

    session: Session
    made: Prepared
    log: list[dict[str, Any]]
    examples: int
    seconds: float

    @contextmanager
    def active(self) -> Iterator[None]:
        """Put the trained experts into the model inside the block."""
        with self.made.intervention.in_memory(self.session.loaded.moe, self.made):
            yield


def open_run(plan: Plan, out: Path, loaded: LoadedModel | None = None) -> Session:
    """Open a trial's run, with the model of an earlier one of the same folder."""
    session = pipeline.start(plan, out)
    if loaded is not None:
        session.model.loaded = loaded
    return session


def trial(session: Session) -> Trial:
    """Train a run's intervention."""
    if session.plan.selects:
        capture_routing(session)
    made = next(made for made in select(session) if made.variant == session.plan.intervention)
    conversations = training_conversations(session)
    started = time.perf_counter()
    train(session, made, conversations)
    made = trained(session, made, conversations)
    seconds = time.perf_counter() - started
    log = read_jsonl(session.folder.layout.variant(made.name).training)
    return Trial(session, made, log, len(conversations), seconds)


@dataclasses.dataclass
class Answered:
    """What a task's test prompts were answered."""

    task: str
    kind: str
    responses: list[Answer]
    verdicts: list[Verdict]

    @property
    def rate(self) -> Any:
        """How often they were refused."""
        labels = {verdict.id: verdict.label for verdict in self.verdicts}
        return rate({id: None if label is None else label == "refusal" for id, label in labels.items()})


def answered(session: Session) -> list[Answered]:
    """Let the model answer the test prompts, as it is at the moment."""
    found = []
    for task, prompts in session.plan.prompts("test").items():
        if prompts:
            opening, tokens = session.plan.opening(task), session.plan.max_new_tokens(task)
            batches = session.engine.batches(prompts, opening=opening)
            results = session.engine.generate(batches, tokens, opening=opening)
            responses = [response for result in results for response in result.responses]
            verdicts = judge_all(session.plan.judge, [response.row() for response in responses])
            found.append(Answered(task, session.plan.kind(task), responses, verdicts))
    return found
