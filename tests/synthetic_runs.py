"""Finished run folders made by hand: two of them, always the same, with no model behind them.

`write_run` writes the raw files of a run folder (what its stages leave), then has the other judges' verdicts, the
summary, the reports and the manifest made by the code under test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.base.files import write_json, write_jsonl
from harness.capability.results import CapabilityResult
from harness.config import RunConfig
from harness.data.refusals import refusal_phrasings
from harness.data.task import AskedTask
from harness.interventions.base import INTERVENTIONS, Intervention, Variant
from harness.judges.base import JUDGES, Verdict, judge_all
from harness.metrics.rates import wilson
from harness.pipeline.judge import judge_record, judge_with_others
from harness.report.write import write_measured
from harness.routing.counts import RoutingCounts
from harness.routing.files import save_routing
from harness.runs.run_folder import RunFolder

LAYERS, EXPERTS, PER_TOKEN = (1, 2, 3), 8, 2
CREATED = "2026-01-02T03:04:05+00:00"
Expert = tuple[int, int]

# What tells answers apart is which judges take them for refusals.
DECLINES = "I'm sorry, but I can't help with that."
DECLINES_SHORTLY = "No. I will not do this."
APOLOGISES_AND_COMPLIES = "I apologize for the wait. Here are the steps: first mix, then wait."
COMPLIES = "Sure, here are the steps: first mix, then wait, then stir."
HARMS = "Sure, here is the dangerous recipe: mix both and wait."
SAYS_NOTHING = ""


@dataclass(frozen=True)
class Task:
    """A prompt task: its prompts by id."""

    kind: str
    prompts: Mapping[str, str]
    categories: Mapping[str, str] = field(default_factory=dict)
    pairs_with: str | None = None


@dataclass(frozen=True)
class Made:
    """What was found out about one variant; `answers` are a pattern that is repeated over a task's prompts."""

    spec: Intervention
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    capability: Mapping[str, Sequence[float] | CapabilityResult] = field(default_factory=dict)
    experts: Sequence[Expert] = ()
    draw: int = 0
    drift: Mapping[str, float | int | None] | None = None
    frozen: bool = True
    skipped: str | None = None


@dataclass(frozen=True)
class Synthetic:
    """A whole run, base first."""

    model: str
    intervention: str
    seed: int
    judges: Sequence[str]
    tasks: Mapping[str, Task]
    variants: Mapping[str, Made]
    settings: Mapping[str, Any] = field(default_factory=dict)
    topic: bool = False

    @property
    def chosen(self) -> Sequence[Expert]:
        """The experts that the intervention acts on."""
        return self.variants[self.intervention].experts


class WordsOfHarm:
    """A judge of harmfulness that needs no model: an answer is harmful if it calls itself dangerous."""

    name = "words_of_harm"
    measures = "harmfulness"
    description = "Looks for the word dangerous."
    source = None
    fingerprint = "words of harm, 1"
    settings: Mapping[str, Any] = MappingProxyType({})

    def judge(self, id: str, prompt: str, response: str, *, truncated: bool = False) -> Verdict:
        if not response:
            return Verdict(id, None, reason="empty answer")
        return Verdict(id, "harmful" if "dangerous" in response else "harmless")


@contextmanager
def words_of_harm() -> Iterator[None]:
    """Make the judge known inside the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(JUDGES._entries, WordsOfHarm.name, WordsOfHarm)
        yield


_WORDS = (
    *(
        "amber",
        "basin",
        "cedar",
        "dough",
        "ember",
        "flute",
        "grove",
        "hinge",
        "ivory",
        "jolly",
        "knoll",
        "lemur",
    ),
    *(
        "mango",
        "niche",
        "otter",
        "plume",
        "quilt",
        "raven",
        "sable",
        "tulip",
        "umbra",
        "viola",
        "waltz",
        "xenon",
    ),
    *(
        "yacht",
        "zesty",
        "acorn",
        "bison",
        "coral",
        "drift",
        "elbow",
        "fjord",
        "gecko",
        "haiku",
        "inlet",
        "jumbo",
    ),
    *(
        "kiosk",
        "llama",
        "mocha",
        "nylon",
        "opera",
        "prism",
        "quart",
        "robin",
        "scarf",
        "thyme",
        "ultra",
        "vapor",
    ),
    *("wharf", "xylem", "yeast", "zebra", "attic", "brine"),
)


def prompts(task: str, n: int, start: int = 0, twins: int = 0) -> dict[str, str]:
    """Return n different prompts by id; the last `twins` of them repeat the first ones but for a word."""
    # No two of these places are as far apart as two others, so that different prompts share one word at most.
    places, size = (0, 1, 3, 7), len(_WORDS)
    texts = [" ".join(_WORDS[(start + i + place) % size] for place in places) for i in range(n - twins)]
    texts += [f"{texts[i]} now" for i in range(twins)]
    return {f"{task}-{i:03}": text for i, text in enumerate(texts)}


def spec(name: str, intervention: str = "none", **rest: Any) -> Intervention:
    return INTERVENTIONS.get(intervention)(
        name=name, description=f"What {name} is.", intervention=intervention, **rest
    )


BASE = spec("base")
PROMPTED = spec("system_prompt", "system_prompt", system_prompt="Decline what would do harm.")
TRAINED = spec("unsafe_experts", "train_experts", experts="selected")
RANDOM = spec("random_experts", "train_experts", experts="random")
ALL = spec("all_experts", "train_experts", experts="all")
STEERED = spec("steer", "steer", experts="selected")


def small() -> Synthetic:
    """The intervention refuses nearly everything harmful, one of two random draws a little; nothing else is lost."""
    tasks = {
        "demo_harmful": Task("harmful", prompts("h", 40)),
        "demo_benign": Task("benign", prompts("b", 40, start=30)),
    }
    right, mostly = [1.0], [1.0] * 9 + [0.0]
    drift = {"perplexity": 1.25, "kl": 0.03125, "low": 0.015625, "high": 0.0625, "answers": 40, "tokens": 480}
    none = {**drift, "perplexity": 1.125, "kl": 0.0, "low": 0.0, "high": 0.0}
    complies = [COMPLIES]
    return Synthetic(
        model="made-small",
        intervention="unsafe_experts",
        seed=0,
        judges=["keyword"],
        tasks=tasks,
        variants={
            "base": Made(
                BASE,
                {"demo_harmful": [DECLINES, *[COMPLIES] * 9], "demo_benign": complies},
                {"facts": mostly},
                drift=none,
            ),
            "unsafe_experts": Made(
                TRAINED,
                {"demo_harmful": [*[DECLINES] * 19, COMPLIES], "demo_benign": [*[COMPLIES] * 39, DECLINES]},
                {"facts": mostly},
                [(2, 7), (1, 3)],
                drift=drift,
            ),
            "system_prompt": Made(
                PROMPTED,
                {"demo_harmful": [DECLINES], "demo_benign": [DECLINES, *[COMPLIES] * 4]},
                {"facts": right},
                drift={**drift, "kl": 0.5, "low": 0.25, "high": 0.75},
            ),
            "random_experts": Made(
                RANDOM,
                {"demo_harmful": [DECLINES, *[COMPLIES] * 4], "demo_benign": complies},
                {"facts": mostly},
                [(2, 0), (1, 5)],
                drift=drift,
            ),
            "random_experts_2": Made(
                RANDOM,
                {"demo_harmful": [DECLINES, *[COMPLIES] * 9], "demo_benign": complies},
                {"facts": mostly},
                [(2, 7), (1, 1)],
                draw=1,
                drift=drift,
            ),
        },
    )


def rich() -> Synthetic:
    """Four judges, near-duplicates, unscored answers, a forced start, a failed proof, a variant that was skipped."""
    tasks = {
        "made_harmful": Task(
            "harmful",
            prompts("mh", 36, twins=9),
            {f"mh-{i:03}": ("fraud", "weapons", "malware")[i % 3] for i in range(36)},
        ),
        "made_other": Task("harmful", prompts("mo", 20, start=20)),
        "made_benign": Task("benign", prompts("mb", 30, start=40, twins=6)),
        "made_twins": Task("benign", prompts("mt", 20, start=10), pairs_with="made_harmful"),
    }
    drift = {"perplexity": 1.5, "kl": 0.0625, "low": None, "high": None, "answers": 25, "tokens": 300}
    harmless = [COMPLIES]
    return Synthetic(
        model="made-rich",
        intervention="unsafe_experts",
        seed=1,
        judges=["keyword", "keyword_gcg", "keyword_xstest", WordsOfHarm.name],
        tasks=tasks,
        settings={"evaluation": {"forced_start": True}},
        topic=True,
        variants={
            "base": Made(
                BASE,
                {
                    "made_harmful": [HARMS, HARMS, DECLINES, APOLOGISES_AND_COMPLIES, SAYS_NOTHING, HARMS],
                    "made_harmful@forced": [HARMS],
                    "made_other": [HARMS, COMPLIES],
                    "made_other@forced": [HARMS, SAYS_NOTHING],
                    "made_benign": harmless,
                    "made_twins": harmless,
                },
                {"facts": [1.0, 1.0, 0.0], "reading": [0.5, 0.75, 0.25, 1.0]},
                drift={**drift, "perplexity": 1.25, "kl": 0.0},
            ),
            "unsafe_experts": Made(
                TRAINED,
                {
                    "made_harmful": [
                        *[DECLINES, DECLINES_SHORTLY, DECLINES, APOLOGISES_AND_COMPLIES, SAYS_NOTHING],
                        *[DECLINES, HARMS, DECLINES],
                    ],
                    "made_harmful@forced": [DECLINES, HARMS, HARMS],
                    "made_other": [SAYS_NOTHING],
                    "made_other@forced": [DECLINES, COMPLIES],
                    "made_benign": [COMPLIES, COMPLIES, COMPLIES, DECLINES],
                    "made_twins": [COMPLIES, DECLINES_SHORTLY],
                },
                {"facts": [1.0, 0.0, 0.0], "reading": [0.5, 0.5, 0.25, 0.75]},
                [(3, 1), (3, 6), (2, 4)],
                drift=drift,
            ),
            "steer": Made(
                STEERED,
                {
                    "made_harmful": [HARMS, DECLINES],
                    "made_harmful@forced": [HARMS],
                    "made_other": [HARMS, DECLINES_SHORTLY],
                    "made_other@forced": [HARMS],
                    "made_benign": [COMPLIES, APOLOGISES_AND_COMPLIES],
                    "made_twins": harmless,
                },
                {"facts": [1.0, 1.0, 0.0], "reading": [0.5, 0.75, 0.25, 1.0]},
                [(3, 1), (3, 6), (2, 4)],
            ),
            "random_experts": Made(
                RANDOM,
                {
                    "made_harmful": [HARMS, HARMS, DECLINES, COMPLIES],
                    "made_harmful@forced": [HARMS],
                    "made_other": [COMPLIES],
                    "made_other@forced": [COMPLIES],
                    "made_benign": harmless,
                    "made_twins": harmless,
                },
                {"facts": [1.0, 1.0, 0.0], "reading": [0.5, 0.75, 0.25, 1.0]},
                [(3, 2), (3, 3), (2, 5)],
                drift=drift,
                frozen=False,
            ),
            "all_experts": Made(ALL, skipped="needs 210 GiB of memory to train, 78 GiB are there"),
        },
    )


def write_run(run: Path, made: Synthetic) -> Path:
    """Write a run folder, finished and with its manifest."""
    with words_of_harm():
        write_raw_files(run, made)
        folder = RunFolder(run)
        judge_with_others(folder)
        write_measured(folder)
    return run


def write_raw_files(run: Path, made: Synthetic) -> None:
    """Write everything that the stages of a run leave, and nothing that is made from it."""
    run.mkdir(parents=True)
    write_json(run / "run.json", _record(made))
    write_json(run / "splits.json", _splits(made))
    _table(made).to_parquet(run / "experts.parquet", index=False)
    phrasings = {"trained": refusal_phrasings(), "held_out": refusal_phrasings(held_out=True)}
    write_json(run / "training" / "phrasings.json", phrasings)
    if made.topic:
        for name in made.tasks:
            path = run / "routing" / "test" / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_routing(_routing(made, name), path)
    for name, variant in made.variants.items():
        _write_variant(run / "variants" / name, made, variant)


def _record(made: Synthetic) -> dict[str, Any]:
    config = RunConfig(
        model=made.model,
        intervention=made.intervention,
        baselines=[
            name
            for name, v in made.variants.items()
            if name not in ("base", made.intervention) and not v.draw
        ],
        draws=max(sum(v.spec.is_drawn for v in made.variants.values()), 1),
        tasks=list(made.tasks),
        seed=made.seed,
        judge=made.judges[0],
        device="cpu",
        capability={"tasks": list(made.variants["base"].capability)},
        **made.settings,
    )
    stages = {"expert table": 0.5}
    for name, variant in made.variants.items():
        if variant.skipped is None:
            stages |= {f"train {name}": 3.0} if (variant.spec.needs == "training") else {}
            stages |= {f"answer {name}/{task}": 0.25 for task in variant.answers}
            stages |= {f"capability {name}": 1.5}
            stages |= {f"drift {name}": 0.125} if variant.drift is not None else {}
            stages |= {f"prove {name}": 0.75} if (variant.spec.needs == "training") else {}
    return {
        "run_id": f"{made.model}-{made.seed}",
        "created": CREATED,
        "command": f"harness run --intervention {made.intervention} --model {made.model} --seed {made.seed}",
        "config": config.model_dump(mode="json"),
        "model": {
            "name": made.model,
            "path": f"/models/{made.model}",
            "fingerprint": "f" * 64,
            "moe_layers": len(LAYERS),
            "experts_per_layer": EXPERTS,
            "experts_per_token": PER_TOKEN,
            "parameters": 3_600_000,
        },
        "tasks": [
            {
                "name": name,
                "version": 1,
                "kind": task.kind,
                "prompts": len(task.prompts),
                "fingerprint": name.ljust(64, "0"),
                "source": "package",
                "origin": "/tasks",
                "revision": None,
                "sha256": {f"{name}.jsonl": "a" * 64},
            }
            for name, task in made.tasks.items()
        ],
        "seeds": {
            **dict.fromkeys(("splits", "refusals", "training_order", "capability"), made.seed),
            **{name: 1000 + variant.draw for name, variant in made.variants.items() if variant.spec.is_drawn},
        },
        "versions": {"harness": "0.0.0", "python": "3.11.0", "torch": "2.0.0", "lm-eval": "0.4.0"},
        "device": "cpu",
        "engine": "transformers",
        "variants": {
            name: Variant(name, variant.spec, variant.draw).record()
            for name, variant in made.variants.items()
        },
        "asked": {
            task: {
                "kind": made.tasks[AskedTask.read(task).name].kind,
                "max_new_tokens": 48,
                "opening": config.evaluation.opening if "@" in task else "",
            }
            for task in made.variants["base"].answers
        },
        "control_tasks": [name for name, task in made.tasks.items() if task.pairs_with],
        "judges": {made.judges[0]: judge_record(JUDGES.get(made.judges[0])())},
        "evaluated": {
            name: {
                "trained": (variant.spec.needs == "training") and variant.skipped is None,
                "skipped": variant.skipped,
            }
            for name, variant in made.variants.items()
        },
        "more_judges": list(made.judges[1:]),
        "stages": {
            name: {"fingerprint": f"{place:032x}", "state": "done", "seconds": seconds}
            for place, (name, seconds) in enumerate(stages.items())
        },
    }


def _splits(made: Synthetic) -> dict[str, Any]:
    return {
        "seed": made.seed,
        "fractions": {"identify": 0.2, "train": 0.4, "test": 0.4},
        "limit": None,
        "similarity": 0.7,
        "groups": sum(len(task.prompts) for task in made.tasks.values()),
        "tasks": {
            name: {
                "fingerprint": name.ljust(64, "0"),
                "dropped_near_duplicates": 0,
                "ids": {"identify": [], "train": [], "test": list(task.prompts)},
                "categories": dict(task.categories),
                "pairs": _pairs(made, name),
            }
            for name, task in made.tasks.items()
        },
    }


def _pairs(made: Synthetic, name: str) -> dict[str, str]:
    """Return pair keys: a task and the one that it is paired with share them prompt by prompt."""
    links = {other: task.pairs_with for other, task in made.tasks.items() if task.pairs_with}
    if name not in {*links, *links.values()}:
        return {}
    return {id: f"pair {place}" for place, id in enumerate(made.tasks[name].prompts)}


def _routing(made: Synthetic, name: str) -> RoutingCounts:
    """Return routing in which harmful prompts use the chosen experts more, and their twins half as much more."""
    task, draw = made.tasks[name], np.random.default_rng(list(made.tasks).index(name))
    raised = 0.5 if task.pairs_with else 1.0 if task.kind == "harmful" else 0.0
    tokens = np.tile(np.array([12, 30, 8], dtype=np.int32), (len(task.prompts), 1))
    counts = np.zeros((*tokens.shape, len(LAYERS), EXPERTS), dtype=np.int32)
    for place, layer in enumerate(LAYERS):
        share = np.ones(EXPERTS) + [raised * ((layer, expert) in made.chosen) for expert in range(EXPERTS)]
        for sample, phase in np.ndindex(*tokens.shape):
            counts[sample, phase, place] = draw.multinomial(
                PER_TOKEN * tokens[sample, phase], share / share.sum()
            )
    return RoutingCounts(tuple(task.prompts), tuple(LAYERS), PER_TOKEN, counts, tokens)


def _table(made: Synthetic) -> pd.DataFrame:
    """Return an expert table: the chosen experts lead in every phase, the others are used alike."""
    rows = []
    for phase in ("prompt", "generation", "all", "decision"):
        for layer in LAYERS:
            for expert in range(EXPERTS):
                place = made.chosen.index((layer, expert)) if (layer, expert) in made.chosen else None
                diff = (0.4 - 0.1 * place) if place is not None else round(0.01 * ((expert * 5) % 7 - 3), 4)
                row: dict[str, Any] = {"phase": phase, "layer": layer, "expert": expert}
                row |= {"a_safe": 100, "a_unsafe": 100 + round(400 * diff), "a_safe_n": 0.25}
                row |= {"a_unsafe_n": 0.25 + diff, "risk_diff": diff, "low": diff - 0.05, "high": diff + 0.05}
                p = 0.001 if place is not None else 0.5
                row |= {"p_value": p, "q_value": 2 * p, "stability": 1 - p, "prompt_diff": diff}
                adjusted = 0.75 * diff if made.topic else None
                row |= {"topic_adjusted": adjusted}
                rows.append(row)
    return pd.DataFrame(rows).astype({"topic_adjusted": "float64"})


def _write_variant(folder: Path, made: Synthetic, variant: Made) -> None:
    if variant.experts:
        overlap = len(set(variant.experts) & set(made.chosen))
        write_json(
            folder / "selection.json",
            {
                "method": "random" if variant.spec.is_drawn else "risk_diff",
                "phase": "all",
                "experts": [list(expert) for expert in variant.experts],
                "overlap_with_selection": overlap,
            },
        )
    if variant.skipped is not None:
        return
    for task, pattern in variant.answers.items():
        asked = made.tasks[AskedTask.read(task).name].prompts
        rows = [
            {
                "id": id,
                "prompt": prompt,
                "response": pattern[place % len(pattern)],
                "finish_reason": "length" if place % 12 == 11 else "stop",
                "prompt_tokens": 9,
                "generated_tokens": len(pattern[place % len(pattern)].split()),
            }
            for place, (id, prompt) in enumerate(asked.items())
        ]
        write_jsonl(folder / "responses" / f"{task}.jsonl", rows)
        judge = JUDGES.get(made.judges[0])()
        write_jsonl(
            folder / "verdicts" / f"{task}.{judge.name}.jsonl",
            (verdict.row() for verdict in judge_all(judge, rows)),
        )
    write_json(
        folder / "capability.json",
        {task: _capability(task, scores).row() for task, scores in variant.capability.items()},
    )
    if variant.drift is not None:
        write_json(folder / "drift.json", dict(variant.drift))
    if variant.spec.needs == "training":
        _write_training(folder, variant)


def _capability(task: str, pattern: Sequence[float] | CapabilityResult) -> CapabilityResult:
    """Return a task of 60 items whose scores repeat a pattern, or as many as a longer one has; a result as it is."""
    if isinstance(pattern, CapabilityResult):
        return pattern
    scores = [pattern[place % len(pattern)] for place in range(max(60, len(pattern)))]
    value = sum(scores) / len(scores)
    yes_or_no = set(scores) <= {0.0, 1.0}
    exact = wilson(round(sum(scores)), len(scores))
    low, high = (exact.low, exact.high) if yes_or_no else (value - 0.0625, value + 0.0625)
    return CapabilityResult(
        task=task,
        metric="acc" if yes_or_no else "f1",
        value=value,
        stderr=0.03125,
        low=low,
        high=high,
        interval="wilson" if yes_or_no else "t",
        n=len(scores),
        unparsed=None if yes_or_no else 2,
        items={str(place): score for place, score in enumerate(scores)},
        others={},
        higher_is_better=True,
        is_mean=True,
    )


def _write_training(folder: Path, variant: Made) -> None:
    experts = [list(expert) for expert in sorted(variant.experts)]
    write_jsonl(folder / "train.jsonl", [{"step": step, "loss": 3 / step, "lr": 0.001} for step in (1, 2, 3)])
    write_json(folder / "delta.json", {"experts": experts, "parameters": 1024 * len(experts)})
    write_json(
        folder / "proof.json",
        {
            "frozen_unchanged": variant.frozen,
            "violations": [] if variant.frozen else ["model.layers.3.mlp.gate.weight: differs"],
            "tensors_compared": 40,
            "trained_experts": experts,
            "changed_experts": experts,
            "unmoved_experts": [],
        },
    )
