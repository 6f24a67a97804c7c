import pytest
import yaml

from harness.base.errors import BadInputError
from harness.data.group import expand, list_groups
from harness.data.task import find_task, list_tasks


def group(folder, name, tasks):
    folder.mkdir(exist_ok=True)
    content = {"name": name, "description": "Some.", "tasks": tasks}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


def test_a_group_stands_for_its_tasks_in_its_place_and_each_counts_once(tmp_path):
    group(tmp_path / "groups", "inner", ["jbb_harmful", "alpaca"])
    group(tmp_path / "groups", "outer", ["advbench", "inner", "xstest_safe"])
    assert expand(["alpaca", "outer"], [tmp_path]) == ["alpaca", "advbench", "jbb_harmful", "xstest_safe"]


def test_a_group_beside_tasks_in_an_included_folder_is_told_from_them(tmp_path):
    group(tmp_path, "mine", ["advbench"])
    assert expand(["mine"], [tmp_path]) == ["advbench"]
    assert "mine" not in {spec.name for spec in list_tasks([tmp_path])}
    assert "mine" in {spec.name for spec in list_groups([tmp_path])}


def test_a_group_that_holds_itself_is_refused_with_the_way(tmp_path):
    group(tmp_path / "groups", "one", ["two"])
    group(tmp_path / "groups", "two", ["one"])
    with pytest.raises(BadInputError, match=r"one\.yaml: tasks: the group holds itself \(one > two > one\)"):
        expand(["one"], [tmp_path])


def test_a_group_called_like_a_task_is_refused(tmp_path):
    group(tmp_path / "groups", "advbench", ["alpaca"])
    with pytest.raises(BadInputError, match="'advbench' is a task's name too"):
        expand(["advbench"], [tmp_path])


def test_shipped_groups_name_tasks_that_exist():
    for spec in list_groups():
        for name in expand([spec.name]):
            assert find_task(name).name == name


def test_a_misspelt_group_is_offered():
    with pytest.raises(BadInputError, match="did you mean 'safety-2026'"):
        find_task("safety-2025")
