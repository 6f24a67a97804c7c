"""What a sweep file spans, and what is wrong with one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.sweep.schema import read_sweep


def test_every_combination_of_the_axes_is_a_run(sweep_file):
    sweep = read_sweep(
        sweep_file(
            axes={
                "selection.top_k": [4, 8],
                "recipe": {
                    "plain": {"training.objectives": {"refuse": 1}},
                    "mix": {"training.objectives": {"refuse": 1, "retain": 1}, "training.epochs": 3},
                },
                "seed": [0, 1, 2],
            }
        )
    )
    assert len(sweep.cells) == 12
    assert len({cell.name for cell in sweep.cells}) == 12
    cell = sweep.cells[-1]
    assert dict(cell.labels) == {"selection.top_k": "8", "recipe": "mix", "seed": "2"}
    assert (cell.config.selection.top_k, cell.config.seed, cell.config.training.epochs) == (8, 2, 3)
    assert cell.config.training.objectives == {"refuse": 1, "retain": 1}
    # What one run sets is not set for the next.
    assert 3 not in {c.config.training.epochs for c in sweep.cells if c.labels["recipe"] == "plain"}
    # Settings of the base, and of the model's preset below it, hold where no axis says otherwise.
    assert cell.config.limit == 8
    assert cell.config.tasks == ["demo_harmful", "demo_benign", "demo_twins"]


def test_combinations_that_say_the_same_are_one_run(sweep_file):
    sweep = read_sweep(sweep_file(axes={"seed": [0, 1, 0], "intervention": ["unsafe_experts"]}))
    assert [cell.config.seed for cell in sweep.cells] == [0, 1]
    assert sweep.merged == 1


@given(st.permutations([0, 1, 2, 3]))
def test_a_runs_name_depends_on_its_own_settings_alone(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("sweep")
    names = {}
    for place, seeds in enumerate(([2], order)):
        file = folder / f"{place}.yaml"
        file.write_text(f"axes: {{seed: {seeds}}}")
        names[place] = {cell.config.seed: cell.name for cell in read_sweep(file).cells}
    assert names[0][2] == names[1][2]


def test_runs_that_differ_in_what_is_done_to_the_model_share_the_base(sweep_file):
    def groups(**axes):
        return len({cell.group for cell in read_sweep(sweep_file(axes=axes)).cells})

    assert (
        groups(**{"selection.top_k": [4, 8], "intervention": ["unsafe_experts", "steer"], "seed": [0, 1]})
        == 1
    )
    assert groups(**{"generation.max_new_tokens": [4, 8]}) == 2
    assert groups(limit=[8, 9]) == 2
    assert groups(seeds={"a": {"seed": 0, "split_seed": None}, "b": {"seed": 1, "split_seed": None}}) == 2


def test_folders_are_found_from_any_other_folder(sweep_file, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    (cell,) = read_sweep(sweep_file(axes={"model": ["model"], "data_dir": [["data"]]})).cells
    assert cell.config.model == str(tmp_path / "model")
    assert cell.config.data_dir == [tmp_path / "data"]


def test_the_home_folder_is_put_in_place_of_a_tilde(sweep_file, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "card.json").touch()
    file = sweep_file(
        base={"include": ["~"], "card": "~/card.json"}, axes={"model": ["~/model"], "data_dir": [["~/data"]]}
    )
    (cell,) = read_sweep(file).cells
    assert (cell.config.model, cell.config.card) == (str(tmp_path / "model"), tmp_path / "card.json")
    assert (cell.config.include, cell.config.data_dir) == ([tmp_path], [tmp_path / "data"])


def test_a_card_is_found_from_any_other_folder(sweep_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (cell,) = read_sweep(sweep_file(base={"card": "card.json"}, axes={"seed": [0]})).cells
    assert cell.config.card == tmp_path / "card.json"


@pytest.mark.parametrize("settings", [{"include": ["~nobody-here/x"]}, {"model": "~nobody-here/x"}])
def test_a_home_folder_that_is_not_there_is_one_line(sweep_file, settings):
    with pytest.raises(BadInputError, match="no home folder of 'nobody-here'"):
        read_sweep(sweep_file(base=settings, axes={"seed": [0]}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"axis": {"seed": [0]}}, "axis: unknown key, did you mean 'axes'?"),
        ({"axes": {}}, "axes: expected one setting to vary or more"),
        ({"axes": {"seed": []}}, "axes.seed is empty: expected one value or more"),
        ({"axes": {"recipe": {}}}, "axes.recipe is empty"),
        (
            {"axes": {"selection.topk": [4]}},
            "axes.selection.topk is not a setting, did you mean 'selection.top_k'?",
        ),
        (
            {"axes": {"recipe": {"a": {"sed": 0}}}},
            "axes.recipe.a: unknown setting 'sed', did you mean 'seed'?",
        ),
        ({"axes": {"seed": [0, "many"]}}, "seed: expected a valid integer, found 'many'"),
        ({"axes": {"seed": [0, "many"]}}, "(at seed = many)"),
        (
            {"axes": {"seed": [0], "b": {"x": {"seed": 1}}}},
            "axes.b sets seed, which another axis sets as well",
        ),
        (
            {"axes": {"seed": [0]}, "resources": {"cpu": 4}},
            "resources.cpu: unknown key, did you mean 'cpus'?",
        ),
        ({"axes": {"seed": [0]}, "resources": {"gpus": -1}}, "resources.gpus"),
        (
            {"axes": {"seed": [0]}, "base": {"modle": "demo"}},
            "modle: unknown key, did you mean 'model'?",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_place(sweep_file, content, said):
    file = sweep_file(**content)
    with pytest.raises(BadInputError) as error:
        read_sweep(file)
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)
