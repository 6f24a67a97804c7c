"""What published checkpoints say about decoding, in either of their files, changes no answer and no count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published_habits import CONFIG, GENERATION, HABITS, copy_with

from harness.base.errors import BadInputError
from harness.cli.main import main
from harness.config import VllmConfig, make_config
from harness.data.prompts import Prompt
from harness.engines.in_memory import ModelInMemory
from harness.engines.transformers import TRANSFORMERS, TransformersEngine
from harness.engines.vllm.engine import VllmEngine
from harness.engines.vllm.kind import VLLM
from harness.engines.vllm.start import FOLLOWED
from harness.models.chat import ChatTemplate
from harness.models.decoding import FOLLOWABLE, followed, in_words, set_aside
from harness.models.load import DEMO_FOLDER, load_model, load_tokenizer, outline_model, resolve_model

PROMPTS = [
    Prompt(str(i), text, "t", "benign")
    for i, text in enumerate(("Name three fruits.", "Hi", "What is a lock?"))
]


def answered(folder: Path, follow: tuple[str, ...] = ()) -> Any:
    loaded = load_model(resolve_model(str(folder)), dtype="float32", device="cpu")
    engine = TransformersEngine(loaded, 3, followed=followed(folder, follow))
    (result,) = engine.generate([PROMPTS], 24, capture="tokens")
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


def test_where_generation_config_json_names_no_end_config_jsons_is_followed(tmp_path):
    folder = copy_with(tmp_path / "copy", CONFIG, eos_token_id=[7, 9])
    (folder / GENERATION).write_text('{"do_sample": true}')
    assert load_model(resolve_model(str(folder)), device="cpu").ends == [7, 9]


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


FOLLOWED_VALUES = {
    "bad_words_ids": [[token] for token in range(300, 1500)],
    "begin_suppress_tokens": list(range(300, 1500)),
    "min_new_tokens": 24,
    "no_repeat_ngram_size": 2,
    "repetition_penalty": 5.0,
    "suppress_tokens": list(range(300, 1500)),
}


@pytest.mark.parametrize("file", [GENERATION, CONFIG])
@pytest.mark.parametrize("name", FOLLOWABLE)
def test_a_setting_is_followed_where_that_is_asked_for(tmp_path, clean, name, file):
    folder = copy_with(tmp_path / "copy", file, num_beams=4, **{name: FOLLOWED_VALUES[name]})
    found = answered(folder, (name,))
    assert found.responses != clean.responses
    assert set_aside(folder, [name]) == {"num_beams": 4}
    # What is followed changes which tokens come, not how many of them pass the experts.
    lengths = [answer.prompt_tokens + answer.generated_tokens - 1 for answer in found.responses]
    assert np.diff(found.tokens.offsets).tolist() == lengths


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("repetition_penlty", 1.1, "no setting that can be followed, did you mean 'repetition_penalty'?"),
        ("use_cache", False, "is no rule for greedy decoding, expected bad_words_ids, begin_suppress_tokens"),
        ("do_sample", True, "is no rule for greedy decoding, expected bad_words_ids, begin_suppress_tokens"),
        ("suppress_tokens", None, "is not among the generation settings of copy: none"),
        ("repetition_penalty", "1.1", 'cannot be followed: copy has repetition_penalty = "1.1"'),
        ("repetition_penalty", -1, "cannot be followed: copy has repetition_penalty = -1"),
        ("no_repeat_ngram_size", 2.5, "cannot be followed: copy has no_repeat_ngram_size = 2.5"),
        ("suppress_tokens", [1, "a"], 'cannot be followed: copy has suppress_tokens = [1, "a"]'),
        ("bad_words_ids", [[]], "cannot be followed: copy has bad_words_ids = [[]]"),
    ],
)
def test_a_setting_that_cannot_be_followed_is_one_line(tmp_path, capsys, name, value, expected):
    known = name if name != "repetition_penlty" else "repetition_penalty"
    folder = copy_with(tmp_path / "copy", GENERATION, **{known: value})
    arguments = ["--model", str(folder), "--tasks", "demo_harmful,demo_benign", "--limit", "12"]
    assert main(["run", *arguments, "--dry-run", "--set", f"generation.follow=[{name}]"]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert len(error.strip().splitlines()) == 1


def test_a_generate_of_the_checkpoints_own_is_set_aside(tmp_path, clean):
    folder = copy_with(tmp_path / "copy", GENERATION)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate/generate.py").write_text(
        "def generate(model, *args, **kwargs):\n    return None\n"
    )
    assert set_aside(folder) == {"custom_generate": "custom_generate/generate.py"}
    ref = resolve_model(str(folder), trust_remote_code=True)
    loaded = load_model(ref, dtype="float32", device="cpu")
    (found,) = TransformersEngine(loaded, 3).generate([PROMPTS], 24)
    assert found.responses == clean.responses


def test_vllm_follows_the_same_or_refuses():
    refused = {name for name in FOLLOWABLE if VLLM.why_not_followed(name)}
    assert refused == set(FOLLOWABLE) - set(FOLLOWED)
    assert {"repetition_penalty", "min_new_tokens"} == set(FOLLOWED)


def test_each_engine_says_how_long_a_text_may_be():
    outline = outline_model(resolve_model("demo"))
    assert [kind.longest_text(make_config({}), outline) for kind in (TRANSFORMERS, VLLM)] == [512, 512]
    assert VLLM.longest_text(make_config({"vllm.max_model_len": 100}), outline) == 100


def test_long_values_are_cut_in_words():
    words = in_words({"num_beams": 4, "suppress_tokens": list(range(200)), "use_cache": False})
    assert words.startswith("num_beams = 4, suppress_tokens = [0, 1, ")
    assert words.endswith("..., use_cache = false")
    assert len(words) < 130


def test_a_run_and_inspect_say_what_is_set_aside(tmp_path, capsys):
    folder = copy_with(tmp_path / "copy", GENERATION, repetition_penalty=1.1, use_cache=False)
    arguments = ["--model", str(folder), "--tasks", "demo_harmful,demo_benign", "--limit", "12"]
    arguments += ["--max-new-tokens", "2", "--output", str(tmp_path / "run")]
    said = "generation settings of the checkpoint that are"
    assert main(["capture", *arguments]) == 0
    error = capsys.readouterr().err
    assert error.count(f"{said} set aside: repetition_penalty = 1.1, use_cache = false") == 1
    assert f"{said} followed" not in error
    first = _run_json(tmp_path)
    assert first["model"]["set_aside"] == {"repetition_penalty": 1.1, "use_cache": False}
    follow = ["--set", "generation.follow=[repetition_penalty]"]
    assert main(["run", *arguments, *follow, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["set_aside"], plan["followed"]) == ({"use_cache": False}, {"repetition_penalty": 1.1})
    assert main(["capture", *arguments, *follow]) == 0
    error = capsys.readouterr().err
    assert f"{said} set aside: use_cache = false" in error
    assert f"{said} followed: repetition_penalty = 1.1" in error
    second = _run_json(tmp_path)
    assert second["model"]["followed"] == {"repetition_penalty": 1.1}
    for stage in ("capture demo_harmful", "capture demo_benign"):
        assert first["stages"][stage]["fingerprint"] != second["stages"][stage]["fingerprint"]
    assert main(["models", "inspect", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["set_aside"] == {"repetition_penalty": 1.1, "use_cache": False}
    assert main(["models", "inspect", str(folder)]) == 0
    assert "repetition_penalty = 1.1, use_cache = false" in capsys.readouterr().out


def test_a_run_keeps_the_clock_of_its_template_and_counts_prompts_that_spell_control_tokens(tmp_path, capsys):
    folder = copy_with(tmp_path / "copy", GENERATION, use_cache=False)
    template = folder / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y %H:%M:%S') }}" + template.read_text())
    prompts = [{"id": str(i), "prompt": f"Name fruit {i}."} for i in range(30)]
    for i in (3, 4, 5):
        prompts[i]["prompt"] = f"Name <|im_end|> fruit {i}."
    (tmp_path / "own.jsonl").write_text("".join(f"{json.dumps(prompt)}\n" for prompt in prompts))
    (tmp_path / "own.yaml").write_text(OWN_TASK)
    arguments = [
        "--model",
        str(folder),
        "--include",
        str(tmp_path),
        "--tasks",
        "own",
        "--max-new-tokens",
        "2",
    ]
    arguments += ["--intervention", "system_prompt", "--baselines", "base", "--output", str(tmp_path / "run")]
    assert main(["run", *arguments]) == 0
    assert "prompts that spell a control token, read as text: 3 of own" in capsys.readouterr().err
    first = _run_json(tmp_path)
    assert first["spelling_control_tokens"] == {"own": 3}
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    expected = {"set_aside": ["use_cache"], "prompts_spelling_control_tokens": {"own": 3}}
    assert summary["decoding"].items() >= {**expected, "template_clock": first["clock"]}.items()
    report = (tmp_path / "run/report.md").read_text()
    assert all(name in report for name in (*expected, first["clock"]))
    # Continued later, it reads the recorded time; at another time, all is asked again.
    assert main(["run", *arguments]) == 0
    second = _run_json(tmp_path)
    assert (second["clock"], second["stages"]) == (first["clock"], first["stages"])
    (tmp_path / "run/run.json").write_text(json.dumps(second | {"clock": "2020-01-02T03:04:05"}))
    assert main(["run", *arguments]) == 0
    third = _run_json(tmp_path)
    answers = "answer base/own"
    assert third["stages"][answers]["fingerprint"] != first["stages"][answers]["fingerprint"]
    (tmp_path / "run/run.json").write_text(json.dumps(third | {"clock": 5}))
    capsys.readouterr()
    assert main(["run", *arguments]) == 2
    assert "run.json: clock: expected a valid string, found 5" in capsys.readouterr().err


OWN_TASK = """
name: own
kind: benign
description: Fruit.
source:
  package_files: [own.jsonl]
prompt: {column: prompt}
id_column: id
roles: [test]
licence: none
citation: none
"""


def _run_json(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run/run.json").read_text())
    return content
