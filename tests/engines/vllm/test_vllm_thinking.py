"""vLLM on a model that thinks: token for token what transformers makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from routed_answers import ask
from scripted import saved, scripted

from harness.data.prompts import Prompt
from harness.engines.transformers import TransformersEngine
from harness.models.chat import ChatTemplate

SCRIPTS = {
    " tree": "<think> red blue green</think> bread milk book",
    " dog": " one two three four",
    " door": "<seed:think> lock police...",
}
PROMPTS = [Prompt(name.strip(), f"Say{name}", "task", "benign") for name in SCRIPTS]


@pytest.fixture(scope="module")
def thinker(demo, tmp_path_factory):
    return saved(scripted(demo, SCRIPTS), tmp_path_factory.mktemp("model") / "thinker")


@pytest.mark.parametrize(("budget", "longest"), [(12, 8), (12, 2), (4, 8)])
def test_answers_limits_and_phases_are_those_of_transformers(thinker, vllm_engine, budget, longest):
    chat = ChatTemplate.of_run(thinker.tokenizer, {}, "auto", budget)
    engine = vllm_engine(thinker.ref)
    engine.chat = chat
    found = ask(engine, PROMPTS, longest)
    expected = ask(TransformersEngine(thinker, 3, chat), PROMPTS, longest)
    assert found.responses == expected.responses
    assert any(row.reasoning for row in found.responses)
    np.testing.assert_array_equal(found.counts.tokens, expected.counts.tokens)
    np.testing.assert_array_equal(found.tokens.answer_at, expected.tokens.answer_at)


def test_lm_eval_reads_the_answer_alone(thinker, vllm_engine):
    from lm_eval.api.instance import Instance

    engine = vllm_engine(thinker.ref)
    engine.chat = ChatTemplate.of_run(thinker.tokenizer, {}, "auto", 12)
    lm = engine.lm_eval_model(2, "test")
    lm.as_chat = True
    asked = [Instance("generate_until", {}, ("Say tree", {"until": ["green", "milk"], "max_gen_toks": 2}), 0)]
    assert [text.strip() for text in lm.generate_until(asked)] == ["bread"]
