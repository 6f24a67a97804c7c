"""The documents agree with the code: links, command lines, settings, YAML, Python and generated tables."""

from __future__ import annotations

import ast
import configparser
import csv
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main
import yaml

import harness
from harness.cli.main import app
from harness.config import setting_names
from harness.data.task import TaskSpec
from harness.gate.schema import GateFile
from harness.interventions.base import INTERVENTIONS
from harness.judges.find import make_judge
from tools import reference_docs

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fences(text: str, *languages: str) -> Iterator[str]:
    """Yield the fenced blocks in these languages."""
    for language, body in re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language in languages:
            yield body


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def heredocs(script: str) -> dict[str, str]:
    """Return the files that a script writes by `cat > FILE <<'END'`, by name."""
    pattern = r"^cat > (\S+) <<'(\w+)'\n(.*?)^\2$"
    return {name: body for name, _, body in re.findall(pattern, script, re.DOTALL | re.MULTILINE)}


def command_lines(text: str) -> list[list[str]]:
    """Return the words of every `harness ...` command line, in code blocks and in running text."""
    blocks = list(fences(text, "", "bash", "sh", "console"))
    lines = [line for block in blocks for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines()]
    lines += re.findall(r"`(harness [^`\n]+|harness)`", without_fences(text))
    commands = []
    for line in lines:
        found = re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*(?:\S*/bin/)?harness\s+(?P<rest>.*)", line)
        if found:
            # Two spaces or more set a remark off in the overviews.
            words = shlex.split(re.split(r"\s{2,}(?=[^\s#-])", found["rest"])[0], comments=True)
            commands.append(words)
    return commands


def parse(words: list[str]) -> None:
    """Parse a command line as `harness` would, without running it."""
    command = typer.main.get_command(app)
    words = list(words)
    while hasattr(command, "commands"):
        if not words or words[0] in ("--help", "--version", "--install-completion"):
            return
        name = words.pop(0)
        if name not in command.commands:
            raise ValueError(f"no command '{name}' among {', '.join(command.commands)}")
        command = command.commands[name]
    if words and "--help" not in words:
        command.make_context(command.name, words)


def settings_named(words: list[str]) -> Iterator[str]:
    for option, value in pairwise(words):
        if option == "--set":
            yield value.partition("=")[0]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_fences(page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("name", NAMES)
def test_every_relative_link_leads_somewhere(name):
    page = ROOT / name
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(_read(name))):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("name", NAMES)
def test_every_command_line_parses(name):
    for words in command_lines(_read(name)):
        try:
            parse(words)
        except Exception as error:
            # typer's errors have no common public type
            pytest.fail(f"harness {shlex.join(words)}: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_that_a_command_line_sets_exists(name):
    named = {setting for words in command_lines(_read(name)) for setting in settings_named(words)}
    known = {
        *setting_names(),
        "generation.chat_template_kwargs.enable_thinking",
        "judge_settings.minos.model",
    }
    assert named - known == set()


@pytest.mark.parametrize("name", NAMES)
def test_every_python_example_compiles_and_imports_what_exists(name):
    for block in fences(_read(name), "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("harness"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    # `from harness.pipeline import pipeline` names a module, not an attribute
                    found = hasattr(module, alias.name)
                    assert found or importlib.util.find_spec(f"{node.module}.{alias.name}"), ast.unparse(node)


@pytest.mark.parametrize("name", NAMES)
def test_every_yaml_example_follows_its_schema(name, tmp_path):
    text = _read(name)
    written = [
        body
        for script in fences(text, "bash")
        for file, body in heredocs(script).items()
        if file.endswith(".yaml")
    ]
    for body in [*fences(text, "yaml"), *written]:
        content = yaml.safe_load(body)
        if "intervention" in content and "description" in content:
            INTERVENTIONS.get(content["intervention"]).model_validate(content)
        elif "form" in content or "extends" in content:
            if "template_file" in content:
                (tmp_path / content["template_file"]).write_text("{{ prompt }} {{ response }}")
            (tmp_path / "mine.yaml").write_text(body)
            make_judge(str(tmp_path / "mine.yaml"))
        elif "gates" in content:
            GateFile.model_validate(content)
        elif "kind" in content:
            TaskSpec.model_validate(content)


def test_the_tutorials_tasks_have_matched_pairs_and_enough_prompts():
    from harness.pipeline.plan import FEWEST_PROMPTS

    files = {}
    for script in fences(_read("docs/tutorial.md"), "bash"):
        files |= heredocs(script)
    rows = list(csv.DictReader(files["mine/mine.csv"].splitlines()))
    assert len(rows) >= FEWEST_PROMPTS
    for column in ("pair", "harmful", "benign"):
        assert len({row[column] for row in rows}) == len(rows)
    for name in ("my_harmful", "my_benign"):
        spec = TaskSpec.model_validate(yaml.safe_load(files[f"mine/{name}.yaml"]))
        assert {spec.prompt.column, spec.pair_column} <= rows[0].keys()


@pytest.mark.parametrize("name", sorted(reference_docs.PAGES))
def test_a_reference_page_says_what_the_code_says(name):
    page = (reference_docs.FOLDER / name).read_text(encoding="utf-8")
    assert page == reference_docs.PAGES[name](), "run: python -m tools.reference_docs"


def test_the_reference_names_settings_options_commands_fields_and_functions():
    pages = {name: page() for name, page in reference_docs.PAGES.items()}
    assert "| `training.epochs` | `--epochs`, `--num-epochs` | `3` | Passes over" in pages["settings.md"]
    assert "\nharness models diff FIRST SECOND\n" in pages["commands.md"]
    assert "| `p_adjusted` | `float \\| null` | The p-value adjusted within the family" in pages["summary.md"]
    assert "## harness.open\n" in pages["python.md"]
    assert "| `verdicts` | Every verdict: variant, task, kind, judge" in pages["python.md"]


def test_every_public_function_of_the_package_has_a_section():
    page = reference_docs.PAGES["python.md"]()
    assert [name for name in harness.__all__ if f"\n## harness.{name}\n" not in page] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_tox_environment_that_is_named_exists(name):
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    for environment in re.findall(r"tox (?:run )?-e (\w+)", _read(name)):
        assert f"testenv:{environment}" in tox, environment


def test_the_readme_is_short():
    assert len(_read("README.md").split()) < 700


def test_every_page_of_the_guide_is_in_the_index():
    lines = re.findall(r"^- \[[^\]]+\]\(([^)#\s]+)\): \S", _read("docs/README.md"), re.MULTILINE)
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(lines) == sorted(pages - {"README.md"}), "one line per page"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("harness run --limt 5", "--limt"),
        ("harness rnu", "rnu"),
        ("harness tasks shwo advbench", "shwo"),
        ("harness run --seed many", "valid integer"),
        ("harness run x", "x"),
    ],
)
def test_a_wrong_command_line_would_be_found(line, said):
    (words,) = command_lines(f"```bash\n{line}\n```")
    with pytest.raises((ValueError, typer.TyperException), match=rf"(\W|^){said}(\W|$)"):
        parse(words)


def test_command_lines_are_found_in_blocks_and_in_text():
    block = "$ harness run --limit 5 \\\n    --seed 1   # a try\nharness select   a remark\n"
    text = f"See `harness tasks list`.\n```\n{block}```\n"
    assert command_lines(text) == [["run", "--limit", "5", "--seed", "1"], ["select"], ["tasks", "list"]]
