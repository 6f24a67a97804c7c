"""What vLLM does otherwise than one batch after another: several answers, preemption, masks; and wrong weights."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from published_habits import CONFIG, GENERATION, HABITS, copy_with
from routed_answers import ask

from harness.base.errors import BadInputError, HarnessError
from harness.data.prompts import Prompt
from harness.engines.base import Decoding, Sampling
from harness.engines.transformers import TransformersEngine
from harness.engines.vllm.kind import VLLM
from harness.engines.witness import Witness, log_probs_of
from harness.experts.select import ExpertSelection
from harness.interventions.masking import steered
from harness.models.load import ModelRef, load_model
from harness.routing.capture import RoutingCapture

TEXTS = [[(7 * i * i + k) % 1400 + 5 for i in range(40)] for k in range(3)]


@pytest.fixture(scope="module")
def olmoe(tiny_checkpoint):
    ref = tiny_checkpoint("olmoe")
    return ref, load_model(ref, "float32", "cpu")


@pytest.mark.parametrize("file", [GENERATION, CONFIG])
def test_what_a_checkpoint_says_about_decoding_changes_nothing(olmoe, vllm_engine, tmp_path, file):
    ref, _ = olmoe
    every = {name: value for habit in HABITS.values() for name, value in habit.items()}
    ends = {} if file == GENERATION else {"eos_token_id": 2}
    folder = copy_with(tmp_path / "copy", file, ref.path, **every, **ends)
    found, expected = (ask(vllm_engine(each)) for each in (ModelRef("copy", folder), ref))
    assert found.responses == expected.responses
    np.testing.assert_array_equal(found.counts.counts, expected.counts.counts)


def test_followed_settings_are_those_of_transformers(olmoe, vllm_engine):
    ref, loaded = olmoe
    rules = {"repetition_penalty": 1.5, "min_new_tokens": 6}
    found = ask(vllm_engine(ref, followed=rules), max_new_tokens=8)
    expected = ask(TransformersEngine(loaded, 3, followed=rules), max_new_tokens=8)
    assert found.responses == expected.responses
    assert found.responses != ask(TransformersEngine(loaded, 3), max_new_tokens=8).responses


def test_sampled_answers_are_routed_as_transformers_routes_their_tokens(olmoe, vllm_engine):
    ref, loaded = olmoe
    found = ask(vllm_engine(ref), max_new_tokens=8, sampling=Sampling(answers=3, seed=5))
    assert len(found.responses) == 18
    texts = {response.id: response.response for response in found.responses}
    assert len(set(texts.values())) > 6
    for name in texts:
        vllm = found.tokens.of(name)
        recorder = RoutingCapture(loaded.moe)
        with torch.inference_mode(), recorder.installed():
            loaded.moe.model(input_ids=torch.tensor(vllm.token_ids.astype(np.int64))[None])
        forced = recorder.take(1).experts[:, 0].permute(1, 0, 2).numpy()
        np.testing.assert_array_equal(np.sort(vllm.experts, -1), np.sort(forced, -1))
    # The same seed draws the same answers.
    again = ask(vllm_engine(ref), max_new_tokens=8, sampling=Sampling(answers=3, seed=5))
    assert {response.id: response.response for response in again.responses} == texts


def test_sampled_answers_are_numbered_and_have_seeds_of_their_own_but_on_a_cpu(olmoe, vllm_engine):
    ref, _ = olmoe
    engine, how = vllm_engine(ref), Sampling(answers=3, temperature=1.5, seed=7)
    together = {row.id: row for row in ask(engine, max_new_tokens=8, sampling=how).responses}
    assert all(row.id == f"{row.prompt_id}#{row.number}" for row in together.values())
    assert {row.number for row in together.values()} == {1, 2, 3}
    prompts = [
        Prompt(row.prompt_id, row.prompt, "task", "benign") for row in together.values() if row.number == 1
    ]
    params = [
        engine._sampling_params(prompts[0], Decoding(8, sampling=how), number) for number in how.numbers
    ]
    assert {each.n for each in params} == {1}
    if VLLM.why_not_seeded() is not None:
        assert {each.seed for each in params} == {None}
        return
    assert [each.seed for each in params] == [how.seed_of(prompts[0].id, number) for number in how.numbers]
    alone = ask(engine, prompts[:1], 8, how._replace(answers=2)).responses
    assert alone == [together[row.id] for row in alone]


def test_what_is_computed_again_after_a_preemption_counts_once(olmoe, vllm_engine, monkeypatch):
    ref, loaded = olmoe
    prompts = [Prompt(f"p{i}", f"{i} " + "a river and a fox " * 12, "task", "benign") for i in range(4)]
    expected = ask(TransformersEngine(loaded, 4), prompts, max_new_tokens=100)
    # Room for five blocks of 128 tokens, one of which vLLM keeps for itself: answers grow into each other's way.
    block = 2 * 3 * 2 * 32 * 4 * 128
    engine = vllm_engine(ref, batch_size=4, kv_cache_gib=5 * block / 2**30)
    steps, call = [], engine._call

    def listen(method, *arguments):
        result = call(method, *arguments)
        steps.extend(result if method == "harness_take" else [])
        return result

    monkeypatch.setattr(engine, "_call", listen)
    found = ask(engine, prompts, max_new_tokens=100)
    begun = [
        name for step in steps for name, start in zip(step.requests, step.starts, strict=True) if start == 0
    ]
    assert len(begun) > len(set(begun)), "nothing was preempted: the test shows nothing"
    assert found.responses == expected.responses
    np.testing.assert_array_equal(found.counts.counts, expected.counts.counts)


def test_under_tensor_parallelism_one_rank_reports(olmoe, vllm_engine, monkeypatch):
    """Two processes that share every matrix; an expert-parallel worker of vLLM 0.32 crashes on a CPU."""
    ref, loaded = olmoe
    cores = sorted(os.sched_getaffinity(0))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", f"{cores[0]}|{cores[-1]}")
    engine = vllm_engine(ref, max_num_batched_tokens=16, tensor_parallel_size=2)
    found = ask(engine)
    expected = ask(TransformersEngine(loaded, 3))
    assert found.responses == expected.responses
    np.testing.assert_array_equal(found.counts.counts, expected.counts.counts)


def test_a_masked_expert_is_never_chosen_and_the_rest_follows_transformers(olmoe, vllm_engine):
    ref, loaded = olmoe
    experts = ((0, 1), (0, 5), (2, 3))
    engine = vllm_engine(ref)
    base = engine.log_probs(TEXTS)
    engine.serve(masked={0: [1, 5], 2: [3]})
    with steered(loaded.moe, ExpertSelection("manual", "all", experts).by_layer()):
        expected = log_probs_of(loaded, TEXTS)
        answers = ask(TransformersEngine(loaded, 3))
    masked = engine.log_probs(TEXTS)
    assert np.abs(np.array(masked) - expected).max() < 1e-3 < np.abs(np.array(masked) - base).max()
    found = ask(engine)
    assert found.responses == answers.responses
    np.testing.assert_array_equal(found.counts.counts, answers.counts.counts)
    engine.serve()
    assert np.abs(np.array(engine.log_probs(TEXTS)) - base).max() < 1e-5


def test_wrong_weights_are_noticed_before_anything_is_answered(olmoe, tiny_checkpoint, vllm_engine):
    ref, loaded = olmoe
    expected = log_probs_of(loaded, TEXTS)
    engine = vllm_engine(ref)
    engine.serve(witness=lambda: Witness(TEXTS, expected, None, "float32"))
    engine.running()
    assert engine.agreement is not None
    assert engine.agreement.gap < 1e-4
    # What is on the disk is not what the witness saw: one expert of 24 is another's.
    other = load_model(ref, "float32", "cpu")
    other.moe.layer(1).weight("down_proj").data[4] *= -1
    changed = log_probs_of(other, TEXTS)
    engine.close()
    engine.serve(witness=lambda: Witness(TEXTS, changed, expected, "float32"))
    with pytest.raises(BadInputError, match="otherwise than transformers"):
        ask(engine)
    assert not engine.is_running


def test_what_changes_without_a_new_start_is_checked_too(olmoe, vllm_engine):
    ref, loaded = olmoe
    base = log_probs_of(loaded, TEXTS)
    asked = []

    def witness():
        asked.append(1)
        return Witness(TEXTS, base, None, "float32")

    engine = vllm_engine(ref)
    engine.serve(witness=witness)
    running = engine.running()
    assert engine.running() is running
    assert len(asked) == 1
    # Base's numbers, while experts are masked.
    engine.serve(masked={0: [1, 5, 6], 1: [0, 2], 2: [3]}, witness=witness)
    with pytest.raises(BadInputError, match="otherwise than transformers"):
        engine.running()
    engine.serve(witness=witness)
    engine.running()
    assert engine.agreement is not None


def test_a_prompt_longer_than_vllm_was_told_says_which_setting_to_raise(olmoe, vllm_engine):
    ref, _ = olmoe
    engine = vllm_engine(ref, max_model_len=32)
    with pytest.raises(HarnessError, match=r"prompt 'long' .* raise vllm.max_model_len"):
        ask(engine, [Prompt("long", "a river and a fox " * 12, "task", "benign")])
