"""Through vLLM every family answers and routes as through transformers: batched, padded, and read in chunks."""

from __future__ import annotations

import numpy as np
import pytest
from routed_answers import PROMPTS, ask, untied_differences

from harness.base.errors import HarnessError
from harness.engines.transformers import TransformersEngine
from harness.engines.witness import Witness, log_probs_of
from harness.models.load import load_model

SERVED = ["qwen3_moe", "mixtral", "olmoe", "qwen2_moe", "granitemoe", "gpt_oss", "glm4_moe"]
TEXTS = [[(7 * i * i + k) % 1400 + 5 for i in range(40)] for k in range(3)]


@pytest.mark.parametrize("family", SERVED)
def test_answers_and_every_tokens_experts_equal_transformers(family, tiny_checkpoint, vllm_engine):
    ref = tiny_checkpoint(family)
    # Two batches of three with transformers; with vLLM one of all, in steps of 16 tokens, so that prompts are cut.
    expected = ask(TransformersEngine(load_model(ref, "float32", "cpu"), 3))
    found = ask(vllm_engine(ref, max_num_batched_tokens=16))
    assert found.responses == expected.responses
    assert max(response.prompt_tokens for response in found.responses) > 16
    assert found.tokens.token_ids.tolist() == expected.tokens.token_ids.tolist()
    differing = untied_differences(found.tokens, expected.tokens)
    assert not differing
    same = np.sort(found.tokens.experts, -1) == np.sort(expected.tokens.experts, -1)
    print(f"{family}: {(~same.all(-1)).sum()} ties among {same.shape[0] * same.shape[1]} choices")
    if same.all():
        np.testing.assert_array_equal(found.counts.counts, expected.counts.counts)
    np.testing.assert_array_equal(found.counts.tokens, expected.counts.tokens)
    np.testing.assert_allclose(found.counts.mass, expected.counts.mass, atol=1e-4)
    assert found.counts.ids == tuple(prompt.id for prompt in PROMPTS)


@pytest.mark.parametrize("family", ["deepseek_v3", "phimoe"])
def test_a_family_that_vllm_computes_otherwise_is_refused_by_name(family, tiny_checkpoint, vllm_engine):
    """vLLM 0.32 on a CPU: latent attention differs by tenths of a nat, phimoe gives no numbers at all.

    On a CPU with AMX vLLM's latent attention takes no float32 weights and refuses deepseek_v3 itself.
    """
    ref = tiny_checkpoint(family)
    expected = log_probs_of(load_model(ref, "float32", "cpu"), TEXTS)
    engine = vllm_engine(ref)
    engine.serve(witness=lambda: Witness(TEXTS, expected, None, "float32"))
    with pytest.raises(
        HarnessError,
        match=f"(otherwise than transformers with the weights of .*|could not be started on .*), a {family}: ",
    ):
        engine.running()
    assert not engine.is_running
