"""What published checkpoints say about decoding, in either of their files, changes no answer and no count."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import BadInputError
from harness.config import VllmConfig
from harness.data.prompts import Prompt
from harness.engines.chat import ChatTemplate
from harness.engines.in_memory import ModelInMemory
from harness.engines.transformers import TransformersEngine
from harness.engines.vllm.engine import VllmEngine
from harness.models.decoding import in_words, set_aside
from harness.models.load import DEMO_FOLDER, load_model, load_tokenizer, outline_model, resolve_model

GENERATION, CONFIG = "generation_config.json", "config.json"
PROMPTS = [
    Prompt(str(i), text, "t", "benign")
    for i, text in enumerate(("Name three fruits.", "Hi", "What is a lock?"))
]
HABITS: dict[str, dict[str, Any]] = {
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(3, 1000))},
    "bad_words_ids": {"bad_words_ids": [[token] for token in range(3, 1000)]},
    "cache_implementation": {"cache_implementation": "static"},
    "dola_layers": {"dola_layers": "high"},
    "do_sample": {"do_sample": True, "temperature": 5.0, "top_k": 0},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": [2, 9.0]},
    "forced_eos_token_id": {"forced_eos_token_id": 2},
    "guidance_scale": {"guidance_scale": 3.0},
    "max_length": {"max_length": 3},
    "max_new_tokens": {"max_new_tokens": 2},
    "max_time": {"max_time": 1e-6},
    "min_new_tokens": {"min_new_tokens": 24},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "num_beams": {"num_beams": 4},
    "num_return_sequences": {"num_return_sequences": 3, "do_sample": True},
    "output_attentions": {"output_attentions": True},
    "output_hidden_states": {"output_hidden_states": True},
    "output_router_logits": {"output_router_logits": True},
    "output_scores": {"output_scores": True},
    "penalty_alpha": {"penalty_alpha": 0.6, "top_k": 4},
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 4},
    "repetition_penalty": {"repetition_penalty": 5.0},
    "return_dict": {"return_dict": False},
    "return_dict_in_generate": {"return_dict_in_generate": True},
    "sequence_bias": {"sequence_bias": [[[5], 50.0]]},
    "stop_strings": {"stop_strings": ["a", "e"]},
    "suppress_tokens": {"suppress_tokens": list(range(3, 1000))},
    "use_cache": {"use_cache": False},
}


def copy_with(folder: Path, file: str, **settings: Any) -> Path:
    """Copy the demo and change one of its files; without generation_config.json, what config.json says is read."""
    shutil.copytree(DEMO_FOLDER, folder)
    if file == CONFIG:
        (folder / GENERATION).unlink()
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def answered(folder: Path, **how: Any) -> Any:
    loaded = load_model(resolve_model(str(folder)), dtype="float32", device="cpu")
    (result,) = TransformersEngine(loaded, 3).generate([PROMPTS], 24, capture="tokens", **how)
    return result


@pytest.fixture(scope="module")
def clean():
    return answered(DEMO_FOLDER)


@pytest.mark.parametrize("file", [GENERATION, CONFIG])
@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_changes_no_answer_and_no_count(tmp_path, clean, habit, file):
    folder = copy_with(tmp_path / "copy", file, **HABITS[habit])
    found = answered(folder)
    assert found.responses == clean.responses
    np.testing.assert_array_equal(found.routing.counts, clean.routing.counts)
    np.testing.assert_array_equal(found.routing.tokens, clean.routing.tokens)
    np.testing.assert_array_equal(found.tokens.experts, clean.tokens.experts)


@pytest.mark.parametrize("file", [GENERATION, CONFIG])
@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_is_named(tmp_path, habit, file):
    folder = copy_with(tmp_path / "copy", file, **HABITS[habit])
    # The demo's own files ask for nothing.
    assert set_aside(DEMO_FOLDER) == {}
    assert set_aside(folder) == HABITS[habit]


def test_all_of_them_together_are_set_aside_for_vllm_too(tmp_path):
    every = {name: value for habit in HABITS.values() for name, value in habit.items()}
    ref = resolve_model(str(copy_with(tmp_path / "copy", GENERATION, **every)))
    engine = VllmEngine(
        ModelInMemory(ref, outline_model(ref), "auto", "cpu"),
        ChatTemplate(load_tokenizer(ref)),
        2,
        VllmConfig(),
    )
    assert engine.ends == (2,)


def test_the_end_tokens_are_followed(tmp_path, clean):
    first = answered(DEMO_FOLDER).tokens
    token = int(first.token_ids[first.offsets[0] + first.prompt_tokens[0]])
    found = answered(copy_with(tmp_path / "copy", GENERATION, eos_token_id=[token, 2]))
    assert found.responses[0].generated_tokens == 1
    assert found.responses[0].finish_reason == "stop"


def test_of_config_json_the_language_models_end_is_followed_where_there_is_no_other(tmp_path):
    folder = copy_with(tmp_path / "copy", CONFIG, eos_token_id=[7, 9])
    assert load_model(resolve_model(str(folder)), device="cpu").moe.model.generation_config.eos_token_id == [
        7,
        9,
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "generation_config.json: expected a mapping of keys to values, found a list"),
        ("{", "generation_config.json: not valid JSON: line 1: Expecting property name"),
        ("[" * 100_000, "generation_config.json: not valid JSON: nested too deeply"),
        ('{"eos_token_id": "</s>"}', "eos_token_id has '</s>', expected a token id or a list of them"),
        ('{"eos_token_id": []}', "names a token that ends an answer"),
    ],
)
def test_a_generation_config_that_is_none(tmp_path, text, expected):
    folder = copy_with(tmp_path / "copy", GENERATION)
    (folder / GENERATION).write_text(text)
    with pytest.raises(BadInputError) as caught:
        load_model(resolve_model(str(folder)), device="cpu")
    assert expected in str(caught.value)


def test_long_values_are_cut_in_words():
    words = in_words({"num_beams": 4, "suppress_tokens": list(range(200)), "use_cache": False})
    assert words.startswith("num_beams = 4, suppress_tokens = [0, 1, ")
    assert words.endswith("..., use_cache = false")
    assert len(words) < 130


def test_a_run_and_inspect_say_what_is_set_aside(tmp_path, capsys):
    from harness.cli.main import main

    folder = copy_with(tmp_path / "copy", GENERATION, repetition_penalty=1.1, use_cache=False)
    arguments = ["--model", str(folder), "--tasks", "demo_harmful,demo_benign", "--limit", "12"]
    arguments += ["--max-new-tokens", "2", "--output", str(tmp_path / "run")]
    assert main(["capture", *arguments]) == 0
    line = "generation settings of the checkpoint that are set aside: repetition_penalty = 1.1, use_cache = false"
    assert capsys.readouterr().err.count(line) == 1
    assert main(["models", "inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["set_aside"] == {"repetition_penalty": 1.1, "use_cache": False}
    assert main(["models", "inspect", str(folder)]) == 0
    assert "repetition_penalty = 1.1, use_cache = false" in capsys.readouterr().out
