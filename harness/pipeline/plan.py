"""The plan of a run: everything that can be decided, and refused, before a folder is made or a model loaded."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, nearest
from harness.capability.lm_eval import check_capability_tasks, require_data
from harness.config import RunConfig, SelectionConfig
from harness.data.group import expand as expand_tasks
from harness.data.holdout import hold_out
from harness.data.sources import load_tasks
from harness.data.splits import Splits, make_splits
from harness.data.task import ROLES, AskedTask, Kind, Role, TaskSpec, find_task, paired_benign
from harness.engines.base import Sampling, chat_of
from harness.engines.choose import choose_engine
from harness.experts.permutation import FEWEST_PROMPTS as FEWEST_TO_COMPARE
from harness.interventions.base import Prepared, Variant
from harness.interventions.spec import BASE, compared, expand, find_variant
from harness.judges.base import Checked, Judge, require_measure
from harness.judges.card import read_card_of
from harness.judges.find import make_judges
from harness.models.auto import check_weights, stored_dtype
from harness.models.decoding import end_tokens, followed, set_aside
from harness.models.load import (
    ModelRef,
    check_holds_experts,
    load_tokenizer,
    outline_model,
    pick_device,
    resolve_model,
)
from harness.models.quantized import check_dtype, quantization_of, why_not_trained
from harness.pipeline.askable import check_askable, spelling_control_tokens
from harness.pipeline.declared import check_declared, check_sampling
from harness.tracking.base import find_tracker

if TYPE_CHECKING:
    from harness.data.prompts import Prompt, PromptSet
    from harness.engines.base import EngineKind
    from harness.models.chat import ChatTemplate
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
        chat: how prompts are rendered.
        followed: the checkpoint's generation settings that are followed, with their values.
        set_aside: those that are not.
        more_judges: the judges beside the primary one.
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
    chat: ChatTemplate
    followed: Mapping[str, Any]
    set_aside: Mapping[str, Any]
    more_judges: Sequence[Judge] = ()

    @property
    def intervention(self) -> Variant:
        """The variant that the run evaluates."""
        return next(variant for variant in self.variants if variant.name == self.config.intervention)

    @property
    def sampling(self) -> Sampling | None:
        """How answers to test prompts are sampled; None for one greedy answer each, which all other prompts get."""
        settings = self.config.generation
        if settings.answers is None:
            return None
        temperature, top_p = settings.temperature or 1.0, settings.top_p or 1.0
        return Sampling(settings.answers, temperature, top_p, self.config.seed)

    @property
    def answers(self) -> int:
        """How many answers a test prompt gets."""
        return self.config.generation.answers or 1

    @property
    def selects(self) -> bool:
        """Whether some variant depends on a selection of experts."""
        return any(variant.spec.uses_selection for variant in self.variants)

    def selection_of(self, variant: Variant) -> SelectionConfig:
        """Return how the experts are selected that a variant acts on, or that its own are matched with."""
        chosen = self.intervention if variant.spec.is_matched else variant
        return chosen.spec.selection_of(self.config.selection)

    @cached_property
    def methods(self) -> set[str]:
        """How the experts are scored that variants act on, and that all are set beside."""
        users = [variant for variant in self.variants if variant.spec.uses_selection]
        return {self.selection_of(variant).method for variant in [self.intervention, *users]}

    @property
    def identifies(self) -> bool:
        """Whether some variant depends on the identify prompts."""
        return self.selects or any(variant.spec.needs == "prompts" for variant in self.variants)

    @property
    def trains(self) -> bool:
        """Whether some variant is trained."""
        return any(variant.spec.needs == "training" for variant in self.variants)

    @property
    def specs(self) -> list[TaskSpec]:
        """The specifications of the tasks."""
        return [prompt_set.spec for prompt_set in self.sets]

    @cached_property
    def _by_name(self) -> dict[str, TaskSpec]:
        """The task behind each name in files and figures."""
        return {str(AskedTask(spec.name, forced)): spec for forced in (False, True) for spec in self.specs}

    def prompts(self, role: Role, kind: str | None = None) -> dict[str, list[Prompt]]:
        """Return the prompts that serve a role, by task; harmful test prompts also with a forced start."""
        prompts: dict[str, list[Prompt]] = {}
        for spec in self.specs:
            if role in spec.roles and kind in (None, spec.kind):
                prompts[spec.name] = self.splits.prompts[spec.name][role]
                if role == "test" and spec.kind == "harmful" and self.config.evaluation.forced_start:
                    prompts[str(AskedTask(spec.name, forced=True))] = prompts[spec.name]
        return prompts

    @cached_property
    def claim_prompts(self) -> dict[str, list[Prompt]]:
        """Return the test prompts of harmful tasks that random draws answer, by task; drawn by the run's seed."""
        n, drawn = self.config.claim.prompts, {}
        for task, prompts in self.prompts("test", "harmful").items():
            spec, by_id = self._by_name[task], sorted(prompts, key=lambda prompt: prompt.id)
            chosen = random.Random(f"{self.config.seed} claim {spec.name}").sample(
                by_id, min(n or len(by_id), len(by_id))
            )
            kept = {prompt.id for prompt in chosen}
            drawn[task] = [prompt for prompt in prompts if prompt.id in kept]
        return drawn

    def is_limited(self, variant: Variant) -> bool:
        """Whether a variant answers the prompts of the claim and nothing else: a draw beside the intervention does."""
        is_beside = variant.spec.name != self.config.intervention
        return self.config.claim.prompts is not None and variant.spec.is_drawn and is_beside

    def test_prompts(self, variant: Variant) -> dict[str, list[Prompt]]:
        """Return the test prompts that a variant answers, by task."""
        return self.claim_prompts if self.is_limited(variant) else self.prompts("test")

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
        """Return the beginning of the answer that a task gives; "" for all but forced starts."""
        return self.config.evaluation.opening if task != self._by_name[task].name else ""

    def kind(self, task: str) -> Kind:
        """Return whether a task's prompts are harmful or benign."""
        return self._by_name[task].kind

    def max_new_tokens(self, task: str) -> int:
        """Return how long an answer to a task may get, reasoning apart."""
        return self.config.generation.max_new_tokens or self._by_name[task].max_new_tokens

    def longest_generation(self, task: str) -> int:
        """Return how many tokens may be generated for a prompt of a task, reasoning and answer."""
        return self.max_new_tokens(task) + (self.chat.thinking.tokens or 0)

    @cached_property
    def spelling_control_tokens(self) -> dict[str, int]:
        """How many prompts of each task spell a control token, which is read as text."""
        return spelling_control_tokens(self, self.chat)

    def control_tasks(self) -> list[str]:
        """Return the benign tasks on the harmful prompts' topics: as in the settings, or paired with a harmful one."""
        if self.config.selection.control is not None:
            return self.config.selection.control
        return paired_benign(self.specs)

    @property
    def groups(self) -> dict[str, list[str]]:
        """The tasks of each group that the settings name, those that measure something."""
        asked = self.prompts("test").keys()
        groups = {name: expand_tasks([name], self.config.include) for name in self.config.tasks}
        return {
            name: [task for task in tasks if task in asked]
            for name, tasks in groups.items()
            if tasks != [name]
        }

    def asked(self) -> dict[str, dict[str, Any]]:
        """Return how each task's test prompts are asked, as run.json keeps it; forced starts are asked apart."""
        return {
            task: {
                "kind": self.kind(task),
                "max_new_tokens": self.max_new_tokens(task),
                "opening": self.opening(task),
            }
            for task in self.prompts("test")
        }


def _judges(config: RunConfig) -> tuple[Judge, list[Judge]]:
    """Return the primary judge, the first of refusal, and the others in their order.

    Without a judge of refusal the first one is returned, which the tasks refuse.
    """
    made = make_judges(_distinct(config.judges, "judge"), config.include, config.judge_settings)
    if not made:
        raise BadInputError("judge: expected a judge, found none; see `harness judges list`")
    primary = next((each for each in made if each.measures == "refusal"), made[0])
    return primary, [each for each in made if each is not primary]


def make_plan(config: RunConfig, command: str = "run") -> Plan:
    """Check a configuration against what there is.

    Args:
        config: all settings.
        command: `run`, or the step of it that will be done.

    Raises:
        BadInputError: a name is unknown, data cannot be had, a split is too small, or the model cannot be used.
    """
    if config.track is not None:
        find_tracker(config.track)
    variants = _variants(config)
    judge, more_judges = _judges(config)
    named = expand_tasks(_distinct(config.tasks, "tasks"), config.include)
    specs = [find_task(name, config.include) for name in named]
    if not specs:
        raise BadInputError("tasks: expected at least one prompt task, found none; see `harness tasks list`")
    # A judge that lacks a setting says so now, not when all answers are there.
    for each in (judge, *more_judges):
        _ = each.fingerprint
    for spec in specs:
        require_measure(judge, "refusal", spec.name)
    for each in (judge, *more_judges):
        if isinstance(each, Checked):
            each.check()
    if config.card is not None:
        read_card_of(judge, config.card)
    capability = check_capability_tasks(
        _distinct(config.capability.tasks, "capability.tasks"), config.include, config.data_dir
    )
    check_declared(config, specs, capability)
    check_sampling(config.generation)
    engine = choose_engine(config, pick_device(config.device).type)
    _check_served(variants, engine)
    ref = resolve_model(config.model, config.trust_remote_code, config.trust_remote_tokenizer)
    tokenizer = load_tokenizer(ref)
    check_dtype(ref.path, config.dtype)
    # An earlier step trains nothing, and `evaluate` leaves out what it would have to train, with the same reason.
    if command in ("run", "train"):
        _check_trainable(variants, ref)
    is_routed = command in ("capture", "select") or any(
        variant.spec.needs in ("experts", "training") for variant in variants
    )
    outline = outline_model(ref, may_be_dense=not is_routed)
    end_tokens(ref.path, outline.model.config, tokenizer)
    stored_dtype(ref.path)
    check_weights(outline.model, ref.path)
    engine.check_model(ref, outline)
    chat = chat_of(config, tokenizer)
    rules = followed(ref.path, config.generation.follow)
    _check_followed(rules, engine)
    rest = set_aside(ref.path, config.generation.follow)
    sets = load_tasks(specs, config.data_dir)
    splits = make_splits(sets, seed=config.seed_of_splits, limit=config.limit)
    plan = Plan(
        config,
        ref,
        outline,
        sets,
        splits,
        variants,
        judge,
        capability,
        engine,
        chat,
        rules,
        rest,
        more_judges,
    )
    _check_splits(plan)
    _check_selection(plan)
    _check_training(plan)
    check_askable(plan, chat)
    # The draws of one specification share it.
    for variant in {variant.spec.name: variant for variant in variants}.values():
        variant.spec.check(ref, outline)
        if variant.spec.is_other_model:
            _check_other_model(plan, variant)
    if command in ("run", "evaluate"):
        # Last: reading the index of lm-eval's tasks takes 20 s, once per process.
        require_data(list(capability), config.include, config.data_dir)
    return plan


def _variants(config: RunConfig) -> tuple[Variant, ...]:
    if config.variant is not None:
        spec = compared(config.variant, config.trust_remote_code, config.trust_remote_tokenizer)
        return Variant(BASE, find_variant(BASE, config.include)), Variant(spec.name, spec)
    variants: list[Variant] = []
    baselines = expand(config.baselines, config.include)
    for name in dict.fromkeys([BASE, config.intervention, *baselines]):
        kind = "intervention" if name == config.intervention else "baseline"
        spec = find_variant(name, config.include, kind)
        draws = range(config.draws if spec.is_drawn else 1)
        variants += [Variant(name if draw == 0 else f"{name}_{draw + 1}", spec, draw) for draw in draws]
    times = Counter(variant.name for variant in variants)
    repeated = [name for name, n in times.items() if n > 1]
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


def _check_trainable(variants: Sequence[Variant], ref: ModelRef) -> None:
    reason = why_not_trained(ref.path)
    names = [variant.name for variant in variants if variant.spec.needs == "training"]
    if names and reason is not None:
        raise BadInputError(
            f"cannot train {', '.join(names)}: {reason}; or name --intervention and --baselines that train nothing"
        )


def _check_other_model(plan: Plan, variant: Variant) -> None:
    """Refuse a model that answers in place of base and that the run's engine or prompts do not fit."""
    config, ref = plan.config, variant.spec.other_model(plan.ref)
    check_dtype(ref.path, config.dtype)
    outline = outline_model(ref, may_be_dense=True)
    plan.engine.check_model(ref, outline)
    _check_followed(followed(ref.path, config.generation.follow), plan.engine)
    chat = chat_of(config, load_tokenizer(ref))
    check_askable(replace(plan, ref=ref, outline=outline, chat=chat, variants=(variant,)), chat)


def _check_followed(rules: Mapping[str, Any], engine: EngineKind) -> None:
    for name in rules:
        reason = engine.why_not_followed(name)
        if reason is not None:
            raise BadInputError(f"engine {engine.name} cannot follow generation.follow = {name}: {reason}")


def _distinct(names: Sequence[str], setting: str) -> Sequence[str]:
    for name in names:
        if names.count(name) > 1:
            raise BadInputError(f"{setting} names '{name}' twice")
    return names


def _check_splits(plan: Plan) -> None:
    limit = plan.config.limit
    caps = limit if isinstance(limit, Mapping) else dict.fromkeys(ROLES, limit)
    fewest = {role: min(FEWEST_PROMPTS, caps.get(role) or FEWEST_PROMPTS) for role in ROLES}
    fewest["identify"] = max(fewest["identify"], FEWEST_TO_COMPARE)
    for spec in plan.specs:
        if "test" in spec.roles:
            plan.splits.require(spec.name, "test", fewest["test"])
    needed: list[tuple[Role, Kind]] = []
    if plan.identifies:
        needed += [("identify", "harmful"), ("identify", "benign")]
    if plan.trains:
        needed += [("train", "harmful")]
    for role, kind in needed:
        count = sum(map(len, plan.prompts(role, kind).values()))
        if count < fewest[role]:
            named = [spec.name for spec in plan.specs if spec.kind == kind]
            raise BadInputError(
                f"{count} {kind} prompts for '{role}' in {', '.join(named) or 'no task'}, expected at least "
                f"{fewest[role]}: name a {kind} task that may serve it{plan.splits.why_few(named)}"
            )


def _check_selection(plan: Plan) -> None:
    if not plan.selects:
        return
    settings = plan.config.selection
    users = {variant.spec.name: variant for variant in plan.variants if variant.spec.uses_selection}
    reason = plan.intervention.spec.why_not_with(plan.selection_of(plan.intervention))
    if reason is not None:
        raise BadInputError(f"{plan.intervention.name}: selection.direction = {settings.direction}: {reason}")
    _check_choice(plan, settings, "selection")
    for name, variant in users.items():
        if (own := variant.spec.selection_of(settings)) != settings:
            _check_choice(plan, own, f"{name}: selection")
        if own.direction != settings.direction and (own.method == "stability" or own.max_q is not None):
            raise BadInputError(
                f"{name}: selection.direction = {own.direction}: stability and q-values are those of the run's "
                f"direction, {settings.direction}"
            )
    identify = plan.prompts("identify", "benign")
    for task in settings.control or []:
        if task not in plan.splits.prompts:
            known = [name for name, prompts in identify.items() if prompts]
            raise BadInputError(f"selection.control: '{task}' is no task of this run, {nearest(task, known)}")
        if plan.kind(task) != "benign":
            raise BadInputError(f"selection.control: '{task}' is a harmful task, expected a benign one")
        count = len(identify.get(task, []))
        if count < FEWEST_TO_COMPARE:
            raise BadInputError(
                f"selection.control: '{task}' has {count} prompts for 'identify', expected at least {FEWEST_TO_COMPARE}"
            )


def _check_choice(plan: Plan, settings: SelectionConfig, where: str) -> None:
    """Refuse a method that there is not, one that lacks what it scores by, and more experts than there are."""
    from harness.experts.select import METHODS

    if settings.method not in METHODS:
        raise BadInputError(
            f"{where}.method: unknown selection method '{settings.method}', {nearest(settings.method, METHODS)}"
        )
    if settings.method == "length_cut" and plan.config.record == "counts":
        raise BadInputError(f"{where}.method = length_cut needs single tokens: add --record tokens")
    total = len(plan.outline.layers) * plan.outline.n_experts
    if settings.at_most is not None and settings.at_most > total:
        raise BadInputError(f"{where}.top_k = {settings.at_most}: '{plan.ref.name}' has {total} experts")


def _check_training(plan: Plan) -> None:
    if not plan.trains:
        return
    from harness.training.objectives import aims_of

    training, stopping = plan.config.training, plan.config.training.early_stopping
    adapted = [variant.name for variant in plan.variants if variant.spec.adapter is not None]
    if adapted and (training.world_size > 1 or stopping.every is not None):
        raise BadInputError(
            f"{adapted[0]} is trained in one process and to its last step: expected training.processes = 1 and no "
            "training.early_stopping.every"
        )
    if quantization_of(plan.ref.path) is None:
        check_holds_experts(plan.ref, plan.config.dtype)
    aims = aims_of(training.objectives)
    if training.refusal_thought:
        plan.chat.turn.lead_with("")
    if training.machines > 1 and not re.fullmatch(r"[^:\s]+:\d+", training.rendezvous or ""):
        raise BadInputError(
            f"training.machines = {training.machines}: expected training.rendezvous = HOST:PORT, found "
            f"{training.rendezvous}"
        )
    if "retain" in aims:
        _check_retained(plan)
    if stopping.every is None:
        return
    if training.world_size > 1:
        raise BadInputError(
            f"training.early_stopping.every = {stopping.every}: expected training.processes = 1, "
            f"found {training.world_size}"
        )
    for purpose, prompts in (
        ("to train on", plan.train_prompts("harmful")),
        ("held out", plan.held_out_prompts("harmful")),
    ):
        if not any(prompts.values()):
            raise BadInputError(
                f"training.early_stopping.share = {stopping.share}: no harmful train prompts are {purpose}"
            )


def _check_retained(plan: Plan) -> None:
    from harness.training.objectives import reading

    training = plan.config.training
    names = " and ".join(reading(training.objectives, "retain"))
    harmful, benign = (sum(map(len, plan.train_prompts(kind).values())) for kind in ("harmful", "benign"))
    if not benign:
        raise BadInputError(
            f"training.objectives: no example is left for {names}. Name a benign task that may serve 'train', or leave "
            f"{names} out"
        )
    ratio = training.retain_per_refusal
    if round(ratio * harmful) == 0:
        raise BadInputError(
            f"training.retain_per_refusal = {ratio}: no example is left for {names}. Raise it, or leave {names} out of "
            "training.objectives"
        )
