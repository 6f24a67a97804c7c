"""The plan of a run: everything that can be decided, and refused, before a folder is made or a model loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError, nearest
from harness.capability.lm_eval import check_capability_tasks
from harness.config import RunConfig
from harness.data.holdout import hold_out
from harness.data.sources import load_task
from harness.data.splits import Splits, make_splits
from harness.data.task import FORCED, ROLES, Kind, Role, TaskSpec, asked_task, find_task
from harness.engines.choose import choose_engine
from harness.experts.permutation import FEWEST_PROMPTS as FEWEST_TO_COMPARE
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import BASE, find_variant
from harness.judges.base import JUDGES, Judge, require_measure
from harness.models.auto import check_weights, refuse_quantized
from harness.models.decoding import end_tokens
from harness.models.load import ModelRef, load_tokenizer, outline_model, pick_device, resolve_model

if TYPE_CHECKING:
    from harness.data.prompts import Prompt, PromptSet
    from harness.engines.base import EngineKind
    from harness.models.moe import MoEModel

# Fewer than this many prompts of a kind say nothing; `--limit` may ask for less, for a try-out.
FEWEST_PROMPTS = 10


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        config: all settings.
        ref: the model on disk.
        outline: the model without weights.
        sets: the tasks, in the order they were named.
        splits: which prompts serve for what.
        variants: base first, then the intervention, then the baselines.
        judge: the primary judge.
        capability: fingerprint of each capability task, by its own name.
        engine: what answers; `auto` is decided.
    """

    config: RunConfig
    ref: ModelRef
    outline: MoEModel
    sets: tuple[PromptSet, ...]
    splits: Splits
    variants: tuple[Variant, ...]
    judge: Judge
    capability: Mapping[str, str]
    engine: EngineKind

    @property
    def intervention(self) -> Variant:
        """The variant that the run evaluates."""
        return next(variant for variant in self.variants if variant.name == self.config.intervention)

    @property
    def selects(self) -> bool:
        """Whether some variant depends on a selection of experts."""
        return any(variant.spec.uses_selection for variant in self.variants)

    @property
    def trains(self) -> bool:
        """Whether some variant is trained."""
        return any(variant.spec.needs == "training" for variant in self.variants)

    def prompts(self, role: Role, kind: str | None = None) -> dict[str, list[Prompt]]:
        """Return the prompts that serve a role, by task."""
        found: dict[str, list[Prompt]] = {}
        for spec in (prompt_set.spec for prompt_set in self.sets):
            if role in spec.roles and kind in (None, spec.kind):
                found[spec.name] = self.splits.prompts[spec.name][role]
                if role == "test" and spec.kind == "harmful" and self.config.evaluation.forced_start:
                    found[spec.name + FORCED] = found[spec.name]
        return found

    def train_prompts(self, kind: Kind) -> dict[str, list[Prompt]]:
        """Return the prompts that are trained on: the train split, less what early stopping looks at."""
        return {task: self._parts[0][task] for task in self.prompts("train", kind)}

    def held_out_prompts(self, kind: Kind) -> dict[str, list[Prompt]]:
        """Return the train prompts that early stopping looks at; none without it."""
        return {task: self._parts[1][task] for task in self.prompts("train", kind)}

    @cached_property
    def _parts(self) -> tuple[dict[str, list[Prompt]], dict[str, list[Prompt]]]:
        train, settings = self.prompts("train"), self.config.training.early_stopping
        if settings.every is None:
            return train, {task: [] for task in train}
        return hold_out(train, self.sets, settings.share)

    def opening(self, task: str) -> str:
        """Return what of an answer a task's prompts already give; "" for all but forced starts."""
        return self.config.evaluation.opening if task.endswith(FORCED) else ""

    def kind(self, task: str) -> Kind:
        """Return whether a task's prompts are harmful or benign."""
        return self._spec(task).kind

    def control_tasks(self) -> list[str]:
        """Return the benign tasks on the harmful prompts' topics: those named, or those paired with a harmful one."""
        if self.config.selection.control is not None:
            return self.config.selection.control
        links = {(s.spec.name, s.spec.pairs_with) for s in self.sets} | {
            (s.spec.pairs_with, s.spec.name) for s in self.sets
        }
        harmful = [s.spec.name for s in self.sets if s.spec.kind == "harmful"]
        return [
            s.spec.name
            for s in self.sets
            if s.spec.kind == "benign" and any((task, s.spec.name) in links for task in harmful)
        ]

    def max_new_tokens(self, task: str) -> int:
        """Return how long an answer to a task may get."""
        if self.config.generation.max_new_tokens is not None:
            return self.config.generation.max_new_tokens
        return self._spec(task).max_new_tokens

    def _spec(self, task: str) -> TaskSpec:
        return next(prompt_set.spec for prompt_set in self.sets if prompt_set.spec.name == asked_task(task))


def make_plan(config: RunConfig) -> Plan:
    """Check a configuration against what there is.

    Raises:
        BadInputError: a name is unknown, data cannot be had, a split is too small, or the model cannot be used.
    """
    variants = _variants(config)
    judge = JUDGES.get(config.judge)()
    specs = [find_task(name, config.include) for name in _distinct(config.tasks, "tasks")]
    # A judge that lacks a setting says so now, not when all answers are there.
    _ = judge.fingerprint
    for spec in specs:
        require_measure(judge, "refusal", spec.name)
    capability = check_capability_tasks(
        _distinct(config.capability.tasks, "capability.tasks"), config.include, config.data_dir
    )
    engine = choose_engine(config, pick_device(config.device).type)
    _check_served(variants, engine)
    ref = resolve_model(config.model, config.trust_remote_code)
    tokenizer = load_tokenizer(ref)
    outline = outline_model(ref)
    end_tokens(ref.path, outline.model.config, tokenizer)
    check_weights(outline.model, ref.path)
    engine.check_model(ref, outline)
    sets = tuple(load_task(spec, config.data_dir) for spec in specs)
    splits = make_splits(sets, seed=config.seed_of_splits, limit=config.limit)
    plan = Plan(config, ref, outline, sets, splits, variants, judge, capability, engine)
    _check_splits(plan)
    _check_selection(plan)
    _check_training(plan)
    return plan


def _variants(config: RunConfig) -> tuple[Variant, ...]:
    names = [BASE, config.intervention, *config.baselines]
    variants: list[Variant] = []
    for place, name in enumerate(dict.fromkeys(names)):
        kind = "intervention" if place == 1 else "baseline"
        spec = find_variant(name, config.include, kind)
        variants += [
            Variant(name if draw == 0 else f"{name}_{draw + 1}", spec, draw)
            for draw in range(config.draws if spec.is_drawn else 1)
        ]
    repeated = {variant.name for variant in variants if [v.name for v in variants].count(variant.name) > 1}
    if repeated:
        raise BadInputError(f"two variants would be called '{min(repeated)}': rename the baseline")
    return tuple(variants)


def _check_served(variants: Sequence[Variant], engine: EngineKind) -> None:
    for variant in variants:
        reason = engine.why_not_servable(Prepared(variant))
        if reason is not None:
            raise BadInputError(
                f"engine {engine.name} cannot serve variant '{variant.name}' (intervention "
                f"'{variant.spec.intervention}'): {reason}"
            )


def _distinct(names: Sequence[str], setting: str) -> list[str]:
    for name in names:
        if list(names).count(name) > 1:
            raise BadInputError(f"{setting} names '{name}' twice")
    return list(names)


def _check_splits(plan: Plan) -> None:
    limit = plan.config.limit
    caps = limit if isinstance(limit, Mapping) else dict.fromkeys(ROLES, limit)
    fewest = {role: min(FEWEST_PROMPTS, caps.get(role) or FEWEST_PROMPTS) for role in ROLES}
    fewest["identify"] = max(fewest["identify"], FEWEST_TO_COMPARE)
    for task in plan.prompts("test"):
        plan.splits.require(asked_task(task), "test", fewest["test"])
    needed: list[tuple[Role, str]] = []
    if plan.selects:
        needed += [("identify", "harmful"), ("identify", "benign")]
    if plan.trains:
        needed += [("train", "harmful")]
    for role, kind in needed:
        found = sum(map(len, plan.prompts(role, kind).values()))
        if found < fewest[role]:
            names = ", ".join(
                prompt_set.spec.name for prompt_set in plan.sets if prompt_set.spec.kind == kind
            )
            raise BadInputError(
                f"{found} {kind} prompts for '{role}' in {names or 'no task'}, expected at least {fewest[role]}: "
                f"name a {kind} task that may serve it"
            )


def _check_selection(plan: Plan) -> None:
    if not plan.selects:
        return
    from harness.experts.select import METHODS

    METHODS.get(plan.config.selection.method)
    if plan.config.selection.method == "length_cut" and plan.config.record == "counts":
        raise BadInputError("selection.method = length_cut needs single tokens: add --record tokens")
    _check_control(plan)
    total = len(plan.outline.layers) * plan.outline.n_experts
    at_most = plan.config.selection.at_most
    if at_most is not None and at_most > total:
        raise BadInputError(f"selection.top_k = {at_most}: '{plan.ref.name}' has {total} experts")


def _check_training(plan: Plan) -> None:
    if not plan.trains:
        return
    from harness.training.objectives import aims_of

    training = plan.config.training
    refuse_quantized(plan.ref.path)
    aims_of(training.objectives)
    if training.machines > 1 and not re.fullmatch(r"[^:\s]+:\d+", training.rendezvous or ""):
        raise BadInputError(
            f"training.machines = {training.machines}: expected training.rendezvous = HOST:PORT, found "
            f"{training.rendezvous}"
        )
    if training.early_stopping.every is None:
        return
    if training.world_size > 1:
        raise BadInputError(
            f"training.early_stopping.every = {training.early_stopping.every}: expected training.processes = 1, "
            f"found {training.world_size}"
        )
    for what, found in (
        ("to train on", plan.train_prompts("harmful")),
        ("held out", plan.held_out_prompts("harmful")),
    ):
        if not any(found.values()):
            raise BadInputError(
                f"training.early_stopping.share = {training.early_stopping.share}: no harmful train prompts are {what}"
            )


def _check_control(plan: Plan) -> None:
    identify = plan.prompts("identify", "benign")
    for task in plan.config.selection.control or []:
        if task not in {prompt_set.spec.name for prompt_set in plan.sets}:
            known = [name for name, prompts in identify.items() if prompts]
            raise BadInputError(f"selection.control: '{task}' is no task of this run, {nearest(task, known)}")
        if plan.kind(task) != "benign":
            raise BadInputError(f"selection.control: '{task}' is a harmful task, expected a benign one")
        found = len(identify.get(task, []))
        if found < FEWEST_TO_COMPARE:
            raise BadInputError(
                f"selection.control: '{task}' has {found} prompts for 'identify', expected at least {FEWEST_TO_COMPARE}"
            )
