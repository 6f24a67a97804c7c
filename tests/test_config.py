"""Settings: which layer wins, and what is refused with which words."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness import config
from harness.base.errors import BadInputError
from harness.config import PRESETS, RunConfig, make_config, setting_names


def test_without_anything_the_demo_gets_its_preset():
    made = make_config({})
    assert made.model == "demo"
    assert made.tasks == ["demo_harmful", "demo_benign", "demo_twins"]


def test_each_layer_wins_over_the_one_below(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "PRESETS", tmp_path)
    (tmp_path / "mine.yaml").write_text("seed: 1\nlimit: 1\ndraws: 1\ntraining: {epochs: 1, batch_size: 1}\n")
    (tmp_path / "file.yaml").write_text("limit: 2\ndraws: 2\ntraining: {epochs: 2}\n")
    made = make_config(
        {"model": "mine", "draws": 3, "training.warmup_steps": 3},
        tmp_path / "file.yaml",
        ["training.epochs=4"],
    )
    assert (made.seed, made.limit, made.draws) == (1, 2, 3)
    training = made.training
    assert (training.batch_size, training.epochs, training.warmup_steps) == (1, 4, 3)
    assert training.learning_rate == RunConfig().training.learning_rate


def test_a_file_may_name_the_model_whose_preset_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "PRESETS", tmp_path)
    (tmp_path / "mine.yaml").write_text("seed: 5\n")
    (tmp_path / "file.json").write_text('{"model": "mine"}')
    assert make_config({}, tmp_path / "file.json").seed == 5


def test_a_model_without_a_preset_gets_the_defaults():
    assert make_config({"model": "someone/something"}) == RunConfig(model="someone/something")


def test_kept_settings_take_the_presets_place():
    kept = make_config({"seed": 9, "selection.top_k": 3}).model_dump(mode="json")
    assert make_config({}, kept=kept) == make_config({"seed": 9, "selection.top_k": 3})
    assert make_config({"seed": 1}, kept=kept).seed == 1


def test_values_of_set_are_yaml():
    made = make_config(
        {},
        assignments=[
            "tasks=[alpaca, advbench]",
            "training.gradient_checkpointing=true",
            "selection.threshold=5e-2",
            "selection.top_k=null",
            "generation.chat_template_kwargs.enable_thinking=false",
        ],
    )
    assert made.tasks == ["alpaca", "advbench"]
    assert made.training.gradient_checkpointing is True
    assert made.selection.threshold == 0.05
    assert made.selection.top_k is None
    assert made.generation.chat_template_kwargs == {"enable_thinking": False}


def test_an_equals_sign_may_stand_in_a_value():
    assert make_config({}, assignments=["device=a=b"]).device == "a=b"


def test_template_arguments_are_replaced_and_not_mixed():
    kept = {"generation": {"chat_template_kwargs": {"a": 1}}}
    made = make_config({"generation.chat_template_kwargs": {"b": 2}}, kept=kept)
    assert made.generation.chat_template_kwargs == {"b": 2}


@pytest.mark.parametrize(
    ("top_k", "threshold", "at_most"), [(None, None, 50), (3, None, 3), (None, 0.1, None), (3, 0.1, 3)]
)
def test_fifty_experts_when_neither_limit_is_given(top_k, threshold, at_most):
    assert config.SelectionConfig(top_k=top_k, threshold=threshold).at_most == at_most


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sed=1", r"--set sed=1: unknown setting 'sed', did you mean 'seed', '.+' or '.+'\?"),
        ("topk=3", r"did you mean 'selection\.top_k', 'selection\.top_p' or 'generation\.top_p'\?"),
        ("training.epoch=1", r"did you mean 'training\.epochs'"),
        ("training=1", "unknown setting 'training'"),
        ("seed", "expected KEY=VALUE"),
        ("seed={", "--set seed={: not valid YAML: line 1: expected the node content"),
        ("seed=-1", "--set seed: expected at least 0, found -1"),
        ("seed=1.5", r"--set seed: expected a valid integer, found 1\.5"),
        (
            "training.learning_rate=0",
            r"--set training\.learning_rate: expected more than 0, found 0",
        ),
        (
            "training.learning_rate=.nan",
            r"--set training\.learning_rate: expected a finite number, found nan",
        ),
        (
            "generation.batch_size=0",
            r"--set generation\.batch_size: expected at least 1, found 0",
        ),
        ("selection.phase=end", "--set selection.phase: expected 'prompt', 'generation', .* found 'end'"),
        (
            "limit=0",
            "limit: expected at least 1 or a mapping of keys to values, found 0",
        ),
        ("limit={test: 0}", "--set limit.test: expected at least 1, found 0"),
        ("limit={tests: 3}", "--set limit.tests: expected 'identify', 'train' or 'test', found 'tests'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(assignment, message):
    with pytest.raises(BadInputError, match=message) as error:
        make_config({}, assignments=[assignment])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainin: {epochs: 2}", "trainin: unknown key, did you mean 'training'?"),
        ("training: {epoch: 2}", "training.epoch: unknown key, did you mean 'epochs'?"),
        ("learning_rate: 1", "learning_rate: unknown key, did you mean 'training.learning_rate'?"),
        ("training: 2", "training: expected a mapping of keys to values, found 2"),
        ("draws: 0", "draws: expected at least 1, found 0"),
    ],
)
def test_a_mistake_is_said_of_the_file_that_has_it(tmp_path, text, message):
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(BadInputError) as error:
        make_config({"seed": 1}, file, ["draws=2"])
    assert str(error.value) == f"{file}: {message}"


def test_a_mistake_of_the_command_line_is_not_said_of_the_file(tmp_path):
    (tmp_path / "file.yaml").write_text("draws: 2\n")
    for flags, assignments, message in (
        ({"draws": 0}, [], "draws: expected at least 1, found 0"),
        ({}, ["draws=0"], "--set draws: expected at least 1, found 0"),
    ):
        with pytest.raises(BadInputError) as error:
            make_config(flags, tmp_path / "file.yaml", assignments)
        assert str(error.value) == message


def test_every_setting_is_described():
    assert all(each.meaning.endswith(".") for each in RunConfig.declared())
    assert {"model", "selection.top_k", "training.learning_rate", "capability.tasks"} <= set(setting_names())


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().seed = 3


@pytest.mark.parametrize("name", [path.stem for path in PRESETS.glob("*.yaml")])
def test_our_presets_fit(name):
    assert make_config({"model": name}).model == name
