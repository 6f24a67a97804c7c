"""What vLLM raises becomes one line that says something; no vLLM is needed to see it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, field_validator

from harness.base.errors import BadInputError, HarnessError
from harness.config import VllmConfig
from harness.engines.in_memory import ModelInMemory
from harness.engines.vllm.engine import VllmEngine
from harness.models.chat import ChatTemplate


class Checked(BaseModel):
    """Refuses itself as vLLM's configurations do: in several lines."""

    length: int

    @field_validator("length")
    @classmethod
    def _too_long(cls, length: int) -> int:
        raise ValueError(f"{length} is too long\nset VLLM_ALLOW_LONG_MAX_MODEL_LEN=1")


def invalid() -> Exception:
    try:
        Checked(length=9)
    except ValueError as error:
        return error
    raise AssertionError


@pytest.fixture
def engine(demo) -> VllmEngine:
    model = ModelInMemory(demo.ref, demo.moe, "float32", "cpu")
    return VllmEngine(model, ChatTemplate(demo.tokenizer), 4, VllmConfig())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("rope_theta"), "KeyError 'rope_theta'"),
        (KeyError(), "KeyError"),
        (ValueError("\n  No supported heads.\nUse others."), "No supported heads."),
        (ValueError(), "ValueError"),
        (invalid(), "9 is too long"),
        (ValueError("x" * 300), "x" * 200 + " ..."),
    ],
)
def test_what_vllm_says_of_a_model_at_the_start_is_one_line(engine, error, reason):
    with pytest.raises(BadInputError) as caught, engine.failures(starting=True):
        raise error
    assert str(caught.value) == f"vLLM cannot serve 'demo', a qwen3_moe: {reason}"


def test_a_failure_while_answering_is_the_runs_not_the_users(engine):
    with pytest.raises(HarnessError) as caught, engine.failures():
        raise ValueError("a worker died\nlog follows")
    assert str(caught.value) == "vLLM failed: a worker died"
    assert caught.value.exit_code == 1
