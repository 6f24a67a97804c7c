"""Plugins are found in packages' metadata, and one that is wrong is in nobody's way."""

from __future__ import annotations

import sys

import pytest

from harness.base import content, plugins
from harness.base.errors import BadInputError
from harness.base.registry import Registry, without

GROUP = "harness.judges"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a package with entry points, its code in one module of its name."""

    def installed(name: str, entries: str, code: str = "", version: str = "1.0") -> None:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entries)
        (tmp_path / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)

    monkeypatch.syspath_prepend(tmp_path)
    caches = (plugins.plugins_of, plugins.all_plugins, plugins.say_once)
    for cached in caches:
        cached.cache_clear()
    yield installed
    for cached in caches:
        cached.cache_clear()


def registry() -> Registry[object]:
    made: Registry[object] = Registry("judge", GROUP, without("name"))
    made.add("ours", object())
    return made


def test_a_plugin_is_listed_without_being_imported_and_imported_when_it_is_asked_for(install):
    install("acme", f"[{GROUP}]\nmine = acme:JUDGE\n", "class JUDGE:\n    name = 'mine'\n")
    judges = registry()
    assert list(judges) == ["mine", "ours"]
    assert "mine" in judges
    assert "acme" not in sys.modules
    assert judges.get("mine").name == "mine"
    assert judges.plugin("mine").package == "acme 1.0"
    assert judges.plugin("ours") is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_of_this_name", "does not work: ModuleNotFoundError: No module named"),
        ("raise RuntimeError('two\\nlines')", "does not work: RuntimeError: two"),
        ("import sys\nsys.exit('bye')", "does not work: SystemExit: bye"),
        ("OTHER = 1", "does not work: AttributeError: module 'acme' has no attribute 'JUDGE'"),
        ("JUDGE = 3", "expected an object with the attribute 'name'"),
        (
            "from types import SimpleNamespace\nJUDGE = SimpleNamespace(name='other')",
            "expected the name 'mine', as its entry point has it, found 'other'",
        ),
    ],
)
def test_a_broken_plugin_is_one_line_for_who_asks_for_it_and_left_out_elsewhere(
    install, capsys, code, message
):
    install("acme", f"[{GROUP}]\nmine = acme:JUDGE\n", code)
    judges = registry()
    with pytest.raises(BadInputError) as refusal:
        judges.get("mine")
    assert str(refusal.value).startswith("judge 'mine' of plugin acme 1.0 (acme:JUDGE)")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert [name for name, _ in judges.working()] == ["ours"]
    assert judges.find("mine") is None
    assert capsys.readouterr().err.count("left out: judge 'mine'") == 1


def test_an_error_in_a_plugins_code_is_told_from_one_of_ours(install):
    install(
        "acme",
        f"[{GROUP}]\nmine = acme:JUDGE\n",
        "class JUDGE:\n    name = 'mine'\n\n    def judge(self):\n        int('x')\n",
    )
    judge = registry().get("mine")()
    with pytest.raises(ValueError, match="invalid literal") as theirs:
        judge.judge()
    line = plugins.error_in_plugin(theirs.value)
    assert line.startswith("error in plugin acme 1.0 (acme): ValueError: invalid literal for int()")
    with pytest.raises(ValueError, match="invalid literal") as ours:
        int("x")
    assert plugins.error_in_plugin(ours.value) is None


def test_a_plugin_called_like_ours_is_named_and_ours_is_used(install, capsys):
    install("acme", f"[{GROUP}]\nours = acme:JUDGE\n")
    judges = registry()
    assert type(judges.get("ours")) is object
    assert judges.in_order() == ["ours"]
    said = capsys.readouterr().err
    assert (
        "judge 'ours' of plugin acme 1.0 (acme:JUDGE) is called like the harness's own, which is used" in said
    )
    assert said.count("\n") == 1


def test_of_two_plugins_with_one_name_neither_is_used(install):
    for name in ("acme", "zeta"):
        install(name, f"[{GROUP}]\nmine = {name}:JUDGE\n")
    judges = registry()
    assert "mine" not in judges
    with pytest.raises(
        BadInputError, match=r"of plugin acme 1.0 .* and of plugin zeta 1.0 .*: two have one name"
    ):
        judges.get("mine")
    judges.get("ours")


def test_a_folder_of_tasks_is_read_without_an_import_after_ours(install, tmp_path, capsys):
    install("acme", "[harness.tasks]\nacme = acme_pkg.questions\nlost = acme_pkg.none\n")
    folder = tmp_path / "acme_pkg" / "questions"
    folder.mkdir(parents=True)
    (tmp_path / "acme_pkg" / "__init__.py").write_text("raise RuntimeError")
    for name in ("acme_task", "advbench"):
        (folder / f"{name}.yaml").write_text("name: x\n")
    files = content.yaml_files_by_name("tasks")
    assert files["acme_task"] == folder / "acme_task.yaml"
    assert files["advbench"].parent == content.content_folder("tasks")
    said = capsys.readouterr().err
    assert f"advbench.yaml of plugin acme 1.0 (acme_pkg.questions) is called like {files['advbench']}" in said
    assert "left out: plugin acme 1.0 (acme_pkg.none): no such folder of tasks" in said
    assert said.count("\n") == 2


def test_a_broken_file_of_a_plugin_is_left_out_of_a_listing_and_refused_by_name(install, tmp_path, capsys):
    from harness.data.task import find_task, list_tasks

    install("acme", "[harness.tasks]\nacme = acme_pkg\n")
    (tmp_path / "acme_pkg").mkdir()
    (tmp_path / "acme_pkg" / "__init__.py").write_text("")
    (tmp_path / "acme_pkg" / "acme_task.yaml").write_text("name: acme_task\nkind: odd\n")
    assert "acme_task" not in [task.name for task in list_tasks()]
    assert capsys.readouterr().err.count("left out: plugin acme 1.0 (acme_pkg)") == 1
    with pytest.raises(BadInputError, match=r"acme_task.yaml: kind: "):
        find_task("acme_task")
