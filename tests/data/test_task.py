import pytest
import yaml

from harness.base.errors import BadInputError
from harness.data.task import TaskSpec, find_task, list_tasks, read_task

MINIMAL = {
    "name": "mine",
    "kind": "benign",
    "description": "Questions.",
    "source": {"files": ["mine.csv"]},
    "prompt": {"column": "question"},
    "licence": "CC0",
    "citation": "Me.",
}


def write(folder, **changes):
    content = {**MINIMAL, **changes}
    path = folder / f"{content['name']}.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def refusal(folder, **changes):
    path = write(folder, **changes)
    with pytest.raises(BadInputError) as caught:
        read_task(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_minimal_task_serves_every_role_and_answers_in_64_tokens(tmp_path):
    spec = read_task(write(tmp_path))
    assert spec.roles == ("identify", "train", "test")
    assert (spec.max_new_tokens, spec.version, spec.folder) == (64, 1, tmp_path)


def test_roles_come_in_the_order_of_use(tmp_path):
    assert read_task(write(tmp_path, roles=["test", "identify"])).roles == ("identify", "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": None}, "kind: missing"),
        ({"kind": "bad"}, "kind: expected 'harmful' or 'benign', found 'bad'"),
        (
            {"licence": None, "license": "CC0"},
            "licence: missing; license: unknown key, did you mean 'licence'?",
        ),
        ({"prompt": {"colum": "a"}}, "prompt.colum: unknown key, did you mean 'column'?"),
        (
            {"prompt": {"column": "a", "template": "{a}"}},
            "prompt: expected exactly one of column, template and messages",
        ),
        ({"prompt": {"template": "no column"}}, "prompt: template: expected at least one column in braces"),
        (
            {"prompt": {"template": "{a.__class__}"}},
            "prompt: template: expected column names alone in braces, found {a.__class__}",
        ),
        (
            {"source": {"files": ["a.csv"], "package_files": ["a.csv"]}},
            "source: expected either package_files, or hub, files or both of these two",
        ),
        ({"source": {}}, "source: expected either package_files, or hub, files or both of these two"),
        (
            {"source": {"files": ["../a.csv"]}},
            "source.files.0: expected a relative path with forward slashes and without '..', found '../a.csv'",
        ),
        (
            {"where": {"column": "a", "equals": "x", "startswith": "y"}},
            "where: expected exactly one of equals, in, not, startswith, not_startswith, and at_least with at_most",
        ),
        ({"roles": []}, "roles: Tuple should have at least 1 item after validation, not 0, found []"),
        ({"roles": ["test", "test"]}, "roles: a role is named twice, found ['test', 'test']"),
        ({"pairs_with": "other"}, "pairs_with: expected pair_column beside it"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1, found 0"),
    ],
)
def test_a_wrong_task_file_is_told_in_one_line_with_its_field(tmp_path, changes, message):
    assert refusal(tmp_path, **changes) == message


def test_a_task_is_called_like_its_file(tmp_path):
    path = write(tmp_path)
    other = path.rename(tmp_path / "other.yaml")
    with pytest.raises(BadInputError, match="name: expected 'other', as the file is called, found 'mine'"):
        read_task(other)


def test_included_tasks_join_the_known_ones_and_win_over_them(tmp_path):
    (tmp_path / "tasks").mkdir()
    write(tmp_path / "tasks")
    write(tmp_path, name="advbench", description="Mine instead.")
    by_name = {spec.name: spec for spec in list_tasks([tmp_path])}
    assert by_name["advbench"].description == "Mine instead."
    assert by_name["mine"].folder == tmp_path / "tasks"
    assert "alpaca" in by_name
    assert find_task("mine", [tmp_path]) == by_name["mine"]


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(BadInputError, match=r"unknown task 'advbnech': did you mean 'advbench'\?"):
        find_task("advbnech")


def test_a_broken_task_file_does_not_hinder_finding_another(tmp_path):
    write(tmp_path, kind="bad")
    write(tmp_path, name="good")
    assert find_task("good", [tmp_path]).name == "good"


def test_every_shipped_task_is_valid_and_says_where_it_comes_from():
    tasks = {spec.name: spec for spec in list_tasks()}
    public = {"advbench", "alpaca", "jbb_benign", "jbb_harmful", "xstest_safe", "xstest_unsafe"}
    assert public <= tasks.keys()
    for name in public:
        assert tasks[name].source.files
        assert tasks[name].source.hub is not None
        assert tasks[name].max_new_tokens == 64
    assert tasks["xstest_safe"].roles == tasks["xstest_unsafe"].roles == ("test",)
    assert tasks["jbb_harmful"].pairs_with == "jbb_benign"
    assert tasks["jbb_benign"].pairs_with == "jbb_harmful"


def test_a_spec_cannot_be_changed():
    spec = TaskSpec.model_validate(MINIMAL)
    with pytest.raises(ValueError, match="frozen"):
        spec.kind = "harmful"
