"""An engine is one file: this one is added from outside the package, and a whole run goes through it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.files import read_json, read_jsonl
from harness.cli.main import main
from harness.config import RunConfig
from harness.data.answer import Answer
from harness.data.prompts import Prompt
from harness.engines.base import ENGINES, BatchResult, Engine, EngineKind
from harness.models.chat import ChatTemplate
from harness.models.load import load_tokenizer

COMPLIES = "Sure, here is how to do that: begin with the first step."
DECLINES = "I'm sorry, but I can't help with that."


class Parrot(Engine):
    """Complies, and declines what is harmful while it has a system prompt; no weights are behind it."""

    name = "parrot"

    def __init__(self, chat: ChatTemplate, complies: str) -> None:
        self.chat, self.batch_size = chat, 4
        self.complies = complies
        self.as_variant: str | None = None

    def generate(
        self,
        batches: Sequence[Sequence[Prompt]],
        max_new_tokens: int,
        system_prompt: str | None = None,
        **unused: Any,
    ) -> Iterator[BatchResult]:
        assert self.as_variant is not None
        for batch in batches:
            ParrotKind.asked += len(batch)
            declines = [prompt.kind == "harmful" and system_prompt is not None for prompt in batch]
            yield BatchResult(
                [
                    Answer(prompt.id, prompt.text, DECLINES if no else self.complies, "stop", 9, 9)
                    for prompt, no in zip(batch, declines, strict=True)
                ]
            )

    @contextmanager
    def serving(self, made: Any, scratch: Path) -> Iterator[None]:
        self.as_variant = made.name
        yield
        self.as_variant = None

    def record(self) -> dict[str, Any]:
        return {"engine": self.name, "variant": self.as_variant}

    def lm_eval_model(self, batch_size: int, description: str) -> Any:
        from lm_eval.api.model import LM

        class Shortest(LM):
            """Prefers the shortest choice."""

            tokenizer_name = "parrot"

            def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
                return [(-float(len(request.args[1])), False) for request in requests]

            def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
                raise NotImplementedError

            def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
                raise NotImplementedError

            def apply_chat_template(self, messages: Any, add_generation_prompt: bool = True) -> str:
                return "".join(message["content"] for message in messages)

            def chat_template(self, chat_template: Any = False) -> str:
                return "parrot"

        return Shortest()


class ParrotKind(EngineKind):
    name = "parrot"
    complies = COMPLIES
    asked = 0

    def why_unusable(self, config: RunConfig, device: str) -> str | None:
        return None if device == "cpu" else "parrots live on CPUs"

    def why_not_servable(self, made: Any) -> str | None:
        return None if made.intervention.needs == "nothing" else "a parrot has no experts"

    def identity(self, config: RunConfig) -> Mapping[str, Any]:
        return {"complies": self.complies}

    def open(self, config: RunConfig, model: Any, prompts: Sequence[Prompt]) -> Parrot:
        return Parrot(ChatTemplate(load_tokenizer(model.ref)), self.complies)


RUN = ("run", "--device", "cpu", "--limit", "12", "--capability-limit", "8", "--engine", "parrot")


@pytest.fixture(scope="module")
def parrot() -> Iterator[ParrotKind]:
    kind = ParrotKind()
    ENGINES.add("parrot", kind)
    yield kind
    del ENGINES._entries["parrot"]


@pytest.fixture(scope="module")
def run(parrot: ParrotKind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "parrot"
    words = ("--intervention", "system_prompt", "--baselines", "none", "--output", str(folder))
    assert main([*RUN, *words]) == 0
    return folder


def again(run: Path) -> int:
    """Give the command once more; returns how many prompts the engine was asked."""
    before = ParrotKind.asked
    words = ("--intervention", "system_prompt", "--baselines", "none", "--output", str(run))
    assert main([*RUN, *words]) == 0
    return ParrotKind.asked - before


def test_every_figure_of_the_run_is_of_the_engines_answers(run):
    summary = read_json(run / "summary.json")
    assert summary["decoding"]["engine"] == "parrot"
    answers = read_jsonl(run / "variants/base/responses/demo_harmful.jsonl")
    assert {row["response"] for row in answers} == {COMPLIES}
    answers = read_jsonl(run / "variants/system_prompt/responses/demo_harmful.jsonl")
    assert {row["response"] for row in answers} == {DECLINES}
    assert (run / "variants/base/capability.json").is_file()
    for name in ("base", "system_prompt"):
        assert read_json(run / f"variants/{name}/served.json") == {"engine": "parrot", "variant": name}


def test_the_run_is_reported_ranked_and_gated(run, tmp_path, capsys):
    assert main(["report", str(run)]) == 0
    assert "100" in capsys.readouterr().out
    assert main(["report", str(run), str(run)]) == 0
    assert "system_prompt" in capsys.readouterr().out
    rate = {"metric": "refusal_rate", "task": "demo_harmful"}
    for bound, code in (({"at_least": 0.5}, 0), ({"at_most": 0.5}, 3)):
        gates = tmp_path / "gates.yaml"
        gates.write_text(yaml.safe_dump({"gates": [{"name": "declines", **rate, **bound}]}))
        assert main(["check", str(run), "--gates", str(gates)]) == code


def test_a_finished_run_asks_nothing_until_the_engines_identity_changes(run, parrot, monkeypatch):
    assert again(run) == 0
    monkeypatch.setattr(parrot, "complies", COMPLIES.replace("first", "second"))
    prompts = sum(len(read_jsonl(path)) for path in run.glob("variants/*/responses/*.jsonl"))
    assert again(run) == prompts > 0


@pytest.mark.parametrize("intervention", ["steer", "unsafe_experts"])
def test_a_variant_that_the_engine_cannot_serve_is_refused_before_anything_runs(
    parrot, tmp_path, capsys, intervention
):
    out = tmp_path / "run"
    words = ("--intervention", intervention, "--baselines", "none", "--output", str(out))
    assert main([*RUN, *words]) == 2
    error = capsys.readouterr().err
    assert f"engine parrot cannot serve variant '{intervention}'" in error
    assert "a parrot has no experts" in error
    assert error.count("\n") == 1
    assert not out.exists()
