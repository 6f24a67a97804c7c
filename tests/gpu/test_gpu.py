"""What is computed on a GPU equals what is computed on a CPU: answers, routing, training and a whole run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from moe_families import FAMILIES, build, load, skip_if_missing
from routed_answers import PROMPTS, ask, untied_differences

from harness.base.files import read_jsonl
from harness.cli.main import main
from harness.config import TrainingConfig
from harness.engines.base import Sampling
from harness.engines.transformers import TransformersEngine
from harness.models.moe import find_moe
from harness.training.bank import ExpertBank
from harness.training.examples import Example
from harness.training.loop import train_bank

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]

EXAMPLES = [
    Example(tuple(range(10 + i, 20 + 3 * i)), (*range(100 + i, 101 + 3 * i), 2), "refuse") for i in range(8)
]
# Families whose router takes the highest logits, so that ties can be told from differences.
BY_LOGITS = ["qwen3_moe", "mixtral", "olmoe", "qwen2_moe", "granitemoe", "gpt_oss"]


def on_gpu(loaded):
    """Return a model moved to the GPU, as it is loaded there."""
    loaded.moe.model.to("cuda")
    return dataclasses.replace(loaded, device=torch.device("cuda"))


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_counts_add_up_and_answers_do_not_depend_on_listening(model_type, demo):
    skip_if_missing(model_type)
    engine = TransformersEngine(on_gpu(load(model_type, demo.tokenizer)), 3)
    plain = list(engine.generate(engine.batches(PROMPTS), 12))
    heard = list(engine.generate(engine.batches(PROMPTS), 12, capture="counts"))
    assert [result.responses for result in heard] == [result.responses for result in plain]
    assert all(result.routing is not None and result.routing.counts.any() for result in heard)


@pytest.mark.parametrize("model_type", BY_LOGITS)
def test_answers_and_every_tokens_experts_equal_a_cpus(model_type, demo):
    skip_if_missing(model_type)
    expected = ask(TransformersEngine(load(model_type, demo.tokenizer), 3))
    found = ask(TransformersEngine(on_gpu(load(model_type, demo.tokenizer)), 3))
    assert found.responses == expected.responses
    assert not untied_differences(found.tokens, expected.tokens)
    np.testing.assert_allclose(found.counts.mass, expected.counts.mass, atol=1e-3)
    np.testing.assert_array_equal(found.counts.tokens, expected.counts.tokens)


def test_sampled_answers_equal_a_cpus(demo):
    how = Sampling(answers=3, temperature=1.5, seed=7)
    expected = ask(TransformersEngine(load("qwen3_moe", demo.tokenizer), 4), sampling=how)
    found = ask(TransformersEngine(on_gpu(load("qwen3_moe", demo.tokenizer)), 4), sampling=how)
    assert found.responses == expected.responses


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}], ids=["kept", "recomputed"])
def test_training_ends_where_a_cpus_does_and_touches_nothing_else(model_type, settings, demo):
    skip_if_missing(model_type)
    ends = []
    for place in (lambda loaded: loaded, on_gpu):
        loaded = place(load(model_type, demo.tokenizer))
        if loaded.moe.model.base_model is loaded.moe.model:
            pytest.skip("this transformers keeps no base model below the output head, which training refuses")
        bank = ExpertBank(loaded.moe, loaded.moe.all_experts()[::3])
        asked = TrainingConfig(epochs=1, warmup_steps=0, batch_size=4, learning_rate=1e-3, **settings)
        log = train_bank(loaded, bank, EXAMPLES, asked, seed=0).log
        ends.append([row["loss"] for row in log])
        state = loaded.moe.model.state_dict()
        untouched = find_moe(build(model_type)).model.state_dict()
        assert all(torch.equal(value.cpu(), untouched[name]) for name, value in state.items())
    np.testing.assert_allclose(ends[1], ends[0], rtol=2e-3)


def test_a_whole_run_of_the_demo(tmp_path):
    run = tmp_path / "run"
    command = ["run", "--model", "demo", "--device", "cuda", "--output", str(run)]
    assert main(command) == 0
    verdicts = read_jsonl(run / "variants/unsafe_experts/verdicts/demo_harmful.builtin.jsonl")
    refused = [row["label"] == "refusal" for row in verdicts]
    assert np.mean(refused) > 0.9
    before = {path: path.read_bytes() for path in run.rglob("*.jsonl")}
    assert main(command) == 0
    assert before == {path: path.read_bytes() for path in run.rglob("*.jsonl")}
