"""Settings say what they decide, and fingerprints depend on just that."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import pytest

from harness.base.fingerprint import fingerprint
from harness.base.settings import Decides
from harness.config import RunConfig, make_config, setting_names
from harness.engines.base import ENGINES
from harness.interventions.base import Prepared
from harness.pipeline import measure, select, train
from harness.pipeline.plan import make_plan
from harness.pipeline.session import Session
from harness.runs.run_folder import RunFolder
from harness.sweep.schema import Cell

EVERYTHING: tuple[Decides, ...] = get_args(Decides)

# Where every setting is one that others are not left to.
BEFORE: dict[str, Any] = {
    "model": "demo",
    "limit": 12,
    "split_seed": 0,
    "engine": "vllm",
    "selection.top_k": 10,
    "training.early_stopping.every": None,
}

# Another value of each setting.
AFTER: dict[str, Any] = {
    "model": "smol-moe",
    "intervention": "all_experts",
    "variant": "elsewhere",
    "tasks": ["advbench"],
    "baselines": [],
    "margins.false_refusal": 0.1,
    "margins.capability": 0.01,
    "margins.by_task": {"alpaca": 0.1},
    "claim.figure": "harmful_rate",
    "capability.tasks": ["demo_facts"],
    "capability.batch_size": 8,
    "capability.limit": 5,
    "capability.num_fewshot": 2,
    "capability.chat_template": True,
    "draws": 5,
    "data_dir": ["elsewhere"],
    "include": ["elsewhere"],
    "limit": 13,
    "seed": 1,
    "split_seed": 1,
    "engine": "transformers",
    "judge": "keyword",
    "judge_settings": {"minos": {"model": "elsewhere"}},
    "card": "elsewhere.json",
    "evaluation.forced_start": True,
    "evaluation.opening": "Of course",
    "evaluation.drift_answers": 8,
    "claim.prompts": 3,
    "generation.max_new_tokens": 5,
    "generation.batch_size": 8,
    "generation.chat_template_kwargs": {"enable_thinking": False},
    "generation.thinking": "off",
    "generation.reasoning_tokens": 64,
    "generation.follow": ["repetition_penalty"],
    "generation.answers": 4,
    "generation.temperature": 0.7,
    "generation.top_p": 0.9,
    "dtype": "bfloat16",
    "device": "cpu",
    "save_model": True,
    "track": "wandb",
    "trust_remote_code": True,
    "trust_remote_tokenizer": True,
    "vllm.tensor_parallel_size": 2,
    "vllm.expert_parallel": True,
    "vllm.gpu_memory_utilization": 0.5,
    "vllm.kv_cache_gib": 2.0,
    "vllm.max_model_len": 512,
    "vllm.max_num_batched_tokens": 512,
    "vllm.cuda_graphs": True,
    "vllm.check_weights": False,
    "record": "tokens",
    "selection.method": "mass_diff",
    "selection.phase": "prompt",
    "selection.top_k": 11,
    "selection.threshold": 0.1,
    "selection.per_layer": 2,
    "selection.top_p": 0.5,
    "selection.max_q": 0.05,
    "selection.direction": "safe",
    "selection.control": ["demo_twins"],
    "selection.cut_tokens": 8,
    "selection.permutations": 500,
    "selection.resamples": 500,
    "selection.half_samples": 50,
    "training.objectives": {"refuse": 1.0},
    "training.preference_beta": 0.2,
    "training.opening_tokens": [2, 3],
    "training.refusal_thought": True,
    "training.epochs": 1,
    "training.max_steps": 5,
    "training.batch_size": 8,
    "training.learning_rate": 0.001,
    "training.warmup_steps": 1,
    "training.gradient_accumulation_steps": 2,
    "training.weight_decay": 0.1,
    "training.max_gradient_norm": 2.0,
    "training.gradient_checkpointing": True,
    "training.lora_rank": 4,
    "training.lora_alpha": 8.0,
    "training.processes": 2,
    "training.machines": 2,
    "training.rendezvous": "first:29500",
    "training.retain_per_refusal": 1.0,
    "training.checkpoint_every": 5,
    "training.early_stopping.every": 5,
    "training.early_stopping.patience": 5,
    "training.early_stopping.share": 0.5,
    "training.early_stopping.prompts": 5,
}


def config(**flags: Any) -> RunConfig:
    # Kept settings instead of a preset, so that every default is the declared one.
    return make_config({**BEFORE, **flags}, kept={})


def changed(name: str) -> RunConfig:
    return config(**{name: AFTER[name]})


@pytest.fixture(scope="module")
def plan():
    return make_plan(make_config({"limit": 12}))


def keys(plan, folder, config: RunConfig) -> dict[str, str]:
    """Return the fingerprints of answers, table, a training and capability, as a run with this engine makes them."""
    engine = ENGINES.get(config.engine)
    session = Session(dataclasses.replace(plan, config=config, engine=engine), RunFolder(folder))
    made = Prepared(plan.intervention)
    return {
        "answers": fingerprint(session.world),
        "table": select._expert_table.fingerprint(session),
        "training": train.train.fingerprint(session, made, []),
        "capability": measure._capability.fingerprint(session, made),
    }


def test_every_setting_says_what_it_decides_and_has_another_value_here():
    for each in RunConfig.declared():
        assert each.decides, each.name
        assert "nothing" not in each.decides or each.decides == ("nothing",), each.name
        assert each.meaning, each.name
    assert sorted(AFTER) == sorted(setting_names())


@pytest.mark.parametrize("name", AFTER)
def test_a_setting_is_among_those_that_decide_what_it_says_and_among_no_others(name):
    decides = next(each.decides for each in RunConfig.declared() if each.name == name)
    before, after = config(), changed(name)
    moved = [what for what in EVERYTHING if before.deciding(what) != after.deciding(what)]
    assert sorted(moved) == sorted(decides)


@pytest.mark.parametrize("name", [name for name in AFTER if name not in ("model", "device")])
def test_a_setting_changes_the_fingerprints_of_what_it_decides_and_no_others(name, plan, tmp_path):
    decides = next(each.decides for each in RunConfig.declared() if each.name == name)
    before, after = (keys(plan, tmp_path / "run", each) for each in (config(), changed(name)))
    moved = {key for key in before if before[key] != after[key]}
    expected = set()
    if "answers" in decides:
        expected |= {"answers", "table", "training", "capability"}
    if "table" in decides or name == "record":
        # How much routing is kept is in the fingerprint of what is captured, and so in the table's.
        expected |= {"table"}
    if "training" in decides:
        expected |= {"training"}
    if "measures" in decides and (name == "seed" or name.startswith("capability.")):
        expected |= {"capability"}
    assert moved == expected


@pytest.mark.parametrize("name", AFTER)
def test_runs_of_a_sweep_share_the_base_model_unless_a_setting_of_its_answers_or_measures_differs(name):
    decides = next(each.decides for each in RunConfig.declared() if each.name == name)
    before, after = (Cell("x", {}, each).group for each in (config(), changed(name)))
    of_base = {"prompts", "answers", "measures"} & set(decides)
    assert (before != after) == (bool(of_base) and name != "seed")


def test_what_a_setting_was_left_to_decides_in_its_place():
    assert config(seed=3, split_seed=None).deciding("prompts")["split_seed"] == 3
    open_ended = config(**{"selection.top_k": None})
    assert open_ended.deciding("table")["selection"]["top_k"] == 50
    limited = config(**{"selection.top_k": None, "selection.threshold": 0.1})
    assert limited.deciding("table")["selection"]["top_k"] is None


def test_groups_are_nested_and_empty_ones_left_out():
    found = config().deciding("answers")
    generation = {"max_new_tokens": None, "batch_size": 32, "chat_template_kwargs": {}, "follow": []}
    assert found["generation"] == generation | {"thinking": "auto", "reasoning_tokens": 1024}
    assert "check_weights" not in found["vllm"]
    assert "selection" not in found
    assert json.loads(json.dumps(found)) == found


def test_a_run_that_has_a_setting_which_is_gone_is_continued():
    kept = config().model_dump(mode="json")
    kept["training"]["launcher"] = "torchrun"
    assert make_config({}, kept=kept) == config()
