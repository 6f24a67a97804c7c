"""`harness experts carry`: trained experts are put back to base one after another, without any training.

Every state, a set of experts that keep their trained values, answers a declared subset of the test prompts once,
however many orders pass through it. Answers are kept as they come, so that a killed command goes on where it was.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.errors import BadInputError, nearest
from harness.base.files import read_jsonl, write_json, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress
from harness.config import make_config
from harness.data.duplicates import groups_where_repeated
from harness.judges.base import Paid, judge_all
from harness.metrics.carry import half, half_of_each, orders, sizes
from harness.metrics.rates import Groups, Rate, rate
from harness.models.clock import clock_at
from harness.models.moe import Expert
from harness.pipeline.conversations import even_shares
from harness.pipeline.pipeline import kept_config
from harness.pipeline.plan import make_plan
from harness.pipeline.session import Session
from harness.report.write import write_measured
from harness.runs.integrity import verify_run
from harness.runs.journal import BatchJournal
from harness.runs.layout import PATHS
from harness.runs.rows import figure
from harness.runs.run import read_run
from harness.runs.run_folder import RunFolder
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.data.prompts import Prompt
    from harness.data.task import Kind
    from harness.engines.transformers import TransformersEngine

State = tuple[Expert, ...]
"""The experts that keep their trained values, sorted."""
_KINDS: tuple[Kind, ...] = ("harmful", "benign")
_VARIANT = PATHS.variant("{job.variant}")


class Asked(NamedTuple):
    """What is asked for.

    Attributes:
        orders: how many random orders, beside the order by rank.
        prompts: of each kind, at the most.
        steps: between no expert put back and all, at the most.
    """

    orders: int = 5
    prompts: int = 24
    steps: int = 24


@dataclass(frozen=True)
class Job:
    """A variant whose experts are put back.

    Attributes:
        session: the run.
        variant: its name.
        ranked: its trained experts, the highest score first.
        asked: how many orders, prompts and steps.
    """

    session: Session
    variant: str
    ranked: tuple[Expert, ...]
    asked: Asked

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return self.session.folder

    @cached_property
    def put_back(self) -> list[int]:
        """How many experts are put back at each step."""
        return sizes(len(self.ranked), self.asked.steps)

    @cached_property
    def orders(self) -> list[list[Expert]]:
        """By rank, then the random ones."""
        return orders(self.ranked, self.asked.orders, self.session.config.seed)

    def path(self, order: Sequence[Expert]) -> list[State]:
        """Return the states that an order passes through."""
        return [tuple(sorted(order[n:])) for n in self.put_back]

    @cached_property
    def states(self) -> list[State]:
        """Every state once."""
        return list(dict.fromkeys(state for order in self.orders for state in self.path(order)))

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The test prompts that are asked, drawn by the run's seed; evenly shared between the tasks of a kind."""
        plan, drawn = self.session.plan, []
        for kind in _KINDS:
            tasks = {
                task: sorted(prompts, key=lambda prompt: prompt.id)
                for task, prompts in plan.prompts("test", kind).items()
                if not plan.opening(task)
            }
            shares = even_shares(self.asked.prompts, {task: len(prompts) for task, prompts in tasks.items()})
            for task, prompts in tasks.items():
                chosen = random.Random(f"{self.session.config.seed} carry {task}").sample(
                    prompts, shares[task]
                )
                # Ids are unique within a task; here tasks share batches.
                drawn += [replace(prompt, id=f"{task}/{prompt.id}", task=task) for prompt in chosen]
        return drawn

    @cached_property
    def groups(self) -> dict[Kind, Groups | None]:
        """Of each kind, the group of near-duplicates of each prompt by id; None where all differ."""
        return {
            kind: groups_where_repeated(
                {prompt.id: prompt.text for prompt in self.prompts if prompt.kind == kind}
            )
            for kind in _KINDS
        }

    @cached_property
    def answers_key(self) -> str:
        """The fingerprint of everything that can change a state's answers."""
        prompts = [[prompt.id, prompt.asked, self.limit(prompt)] for prompt in self.prompts]
        delta = self.folder.layout.variant(self.variant).delta
        return self.session.key(delta=self.folder.hash_of(delta), prompts=prompts)

    def limit(self, prompt: Prompt) -> int:
        """Return how long an answer to a prompt may get."""
        return self.session.plan.max_new_tokens(prompt.task)


def open_job(run: Path, variant: str | None, asked: Asked) -> Job:
    """Check that a variant's experts can be put back.

    Args:
        run: the folder of a finished run.
        variant: its name; the run's intervention by default.
        asked: how many orders, prompts and steps.

    Raises:
        BadInputError: the run is not finished or was changed, the variant trained no chosen experts, or the model is
            another one by now.
    """
    opened = read_run(run)
    if not opened.is_finished:
        raise BadInputError(f"{run}: the run is not finished: run its command again to its end")
    name = variant or opened.record.intervention or ""
    if name not in opened.variants:
        raise BadInputError(f"{run}: no variant '{name}', {nearest(name, opened.variants)}")
    files = opened.layout.variant(name)
    trained = [each for each in opened.variants if opened.layout.variant(each).delta.is_file()]
    if name not in trained:
        raise BadInputError(
            f"{run}: variant '{name}' trained no experts that could be put back; "
            f"{'those that did: ' + ', '.join(trained) if trained else 'none of this run did'}"
        )
    opened.verify(files.delta, files.selection)
    # The whole run is measured again afterwards. A command that was killed leaves run.json and its own files behind.
    own = {path.relative_to(run).as_posix() for path in (files.carry, files.carry_answers, opened.layout.run)}
    verify_run(run, but_for=lambda name: name in own or opened.layout.is_made_of_others(name))
    selection = opened.selection(name)
    assert selection is not None  # verified to be there
    plan = make_plan(make_config({}, None, [], kept_config(run)), "carry")
    session = Session(plan, RunFolder(run))
    if session.model.fingerprint != opened.model.fingerprint:
        raise BadInputError(f"{run} is a run of {opened.model.name}, whose weights have changed")
    return Job(session, name, tuple(Expert(*expert) for expert in selection.experts), asked)


def estimate(job: Job) -> dict[str, Any]:
    """Return what would be done, without doing it; tokens are an upper bound."""
    states, kinds = len(job.states), [prompt.kind for prompt in job.prompts]
    return {
        "run": str(job.folder.path),
        "variant": job.variant,
        "experts": len(job.ranked),
        "put_back": job.put_back,
        "orders": len(job.orders),
        "states": states,
        "prompts": {kind: kinds.count(kind) for kind in _KINDS},
        "answers": states * len(job.prompts),
        "tokens_at_most": states * sum(map(job.limit, job.prompts)),
        "judge": job.session.plan.judge.name,
        "judge_is_paid": isinstance(job.session.plan.judge, Paid),
    }


def carry(job: Job) -> None:
    """Put the experts back, order by order, and write carry.json; the run's reports show it."""
    with clock_at(job.session.clock):
        _carry(job)
    write_measured(job.folder)


def _key(job: Job) -> str:
    ranked = [list(expert) for expert in job.ranked]
    return fingerprint([job.answers_key, ranked, list(job.asked), job.session.plan.judge.fingerprint])


@stage(
    "carry {job.variant}",
    writes=(str(_VARIANT.carry), str(_VARIANT.carry_answers)),
    key=_key,
    keeps=f"{_VARIANT.carry_answers}.partial",
)
def _carry(job: Job) -> None:
    files, judge = job.folder.layout.variant(job.variant), job.session.plan.judge
    answers = _answers(job)
    rows = [
        {"trained": [list(expert) for expert in state], **row}
        for state in job.states
        for row in answers[state]
    ]
    # A judge that takes many at once takes all: an id is unique within a state alone.
    verdicts = judge_all(judge, [row | {"id": f"{place} {row['id']}"} for place, row in enumerate(rows)])
    labels: dict[State, dict[str, bool | None]] = {state: {} for state in job.states}
    for row, verdict in zip(rows, verdicts, strict=True):
        row["label"] = verdict.label
        state = tuple(Expert(*expert) for expert in row["trained"])
        labels[state][row["id"]] = None if verdict.label is None else verdict.label == "refusal"
    write_jsonl(files.carry_answers, rows)
    write_json(files.carry, _record(job, labels))


def _answers(job: Job) -> dict[State, list[dict[str, Any]]]:
    """Return each state's answers: those of an earlier call, those of one that was killed, and new ones."""
    from harness.checkpoints.delta import load_delta
    from harness.engines.transformers import engine_in_memory

    files = job.folder.layout.variant(job.variant)
    known = _earlier(job)
    journal = BatchJournal(files.carry_answers, job.answers_key)
    for state in job.states:
        if state not in known and (rows := journal.rows(_number(state))) is not None:
            known[state] = rows
    missing = [state for state in job.states if state not in known]
    with progress(f"carry {job.variant}", len(job.states) * len(job.prompts), "answers") as advance:
        advance((len(job.states) - len(missing)) * len(job.prompts))
        if missing:
            engine = engine_in_memory(job.session.config, job.session.loaded)
            delta = load_delta(files.delta)
        for state in missing:
            known[state] = list(_ask(job, engine, delta, state))
            journal.finish(_number(state), known[state])
            advance(len(job.prompts))
    return known


def _earlier(job: Job) -> dict[State, list[dict[str, Any]]]:
    """Return the answers that an earlier call with other orders has left, where they are what it wrote."""
    files = job.folder.layout.variant(job.variant)
    if not (
        files.carry.is_file()
        and job.folder.was_left(files.carry)
        and job.folder.was_left(files.carry_answers)
    ):
        return {}
    earlier = read_run(job.folder.path).carry(job.variant)
    if earlier is None or earlier.answers_key != job.answers_key:
        return {}
    known: dict[State, list[dict[str, Any]]] = {}
    for row in read_jsonl(files.carry_answers):
        state = tuple(Expert(*expert) for expert in row.pop("trained"))
        del row["label"]
        known.setdefault(state, []).append(row)
    return known


def _number(state: State) -> int:
    """Return the journal's number of a state, whatever orders it is part of."""
    return int(fingerprint([list(expert) for expert in state])[:12], 16)


def _ask(job: Job, engine: TransformersEngine, delta: ExpertDelta, state: State) -> Iterator[dict[str, Any]]:
    """Yield the answers of the model in which these experts alone have their trained values."""
    from harness.checkpoints.delta import applied, part_of

    moe, rows = job.session.loaded.moe, dict[str, dict[str, Any]]()
    by_limit: dict[int, list[Prompt]] = {}
    for prompt in job.prompts:
        by_limit.setdefault(job.limit(prompt), []).append(prompt)
    with applied(moe, part_of(delta, state)) if state else nullcontext():
        for limit, prompts in by_limit.items():
            for result in engine.generate(engine.batches(prompts), limit):
                rows |= {row["id"]: row for row in (response.row() for response in result.responses)}
    yield from (rows[prompt.id] for prompt in job.prompts)


def _record(job: Job, labels: Mapping[State, Mapping[str, bool | None]]) -> dict[str, Any]:
    """Return the content of carry.json."""
    seed, by_kind = job.session.config.seed, {prompt.id: prompt.kind for prompt in job.prompts}

    def of_kind(state: State, kind: Kind) -> dict[str, bool | None]:
        return {id: label for id, label in labels[state].items() if by_kind[id] == kind}

    def steps(paths: Sequence[list[State]]) -> list[dict[str, Any]]:
        return [
            {
                "put_back": n,
                **{
                    kind: _over_orders([of_kind(path[place], kind) for path in paths], groups)
                    for kind, groups in job.groups.items()
                },
            }
            for place, n in enumerate(job.put_back)
        ]

    paths = [job.path(order) for order in job.orders]
    curves = [[of_kind(state, "harmful") for state in path] for path in paths]
    halves = [half(job.put_back, some, seed, job.groups["harmful"]) for some in (curves[:1], curves[1:])]
    return {
        "answers_key": job.answers_key,
        "judge": job.session.plan.judge.name,
        "seed": seed,
        "prompts": [prompt.id for prompt in job.prompts],
        "experts": len(job.ranked),
        "orders": [[list(expert) for expert in order] for order in job.orders],
        "by_rank": steps(paths[:1]),
        "random": steps(paths[1:]),
        "each": [[step["harmful"]["value"] for step in steps([path])] for path in paths[1:]],
        "half_of_each": half_of_each(job.put_back, curves[1:]),
        "half_by_rank": None if halves[0] is None else halves[0]._asdict(),
        "half_at_random": None if halves[1] is None else halves[1]._asdict(),
    }


def _over_orders(outcomes: Sequence[Mapping[str, bool | None]], groups: Groups | None) -> dict[str, Any]:
    """Return the rate over the answers of all orders; its interval is over prompts, or groups of near-duplicates."""
    whole: Rate
    if len(outcomes) == 1:
        whole = rate(outcomes[0], groups)
    else:
        each = {f"{place} {id}": label for place, own in enumerate(outcomes) for id, label in own.items()}
        prompts = {id: id.partition(" ")[2] for id in each}
        of_answers = None if groups is None else {id: groups[prompts[id]] for id in each}
        whole = rate(each, of_answers, prompts)
    return {name: value for name, value in figure(whole).items() if name != "n"}
