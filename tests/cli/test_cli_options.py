"""Which options commands have, how they are explained and completed, and what that costs to import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from harness.cli.main import app, main
from harness.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]

STEPS = ("run", "capture", "select", "train", "evaluate")
FLAGS = [
    *("--model", "-m", "--intervention", "--tasks", "--baselines", "--capability", "--capability-limit"),
    *("--draws", "--data-dir", "--include", "--limit"),
    *("--output", "-o", "--config", "--set", "--seed", "--engine", "--judge", "--card", "--forced-start"),
    *(
        "--max-new-tokens",
        "--answers",
        "--temperature",
        "--top-p",
        "--thinking",
        "--reasoning-tokens",
        "--dtype",
        "--device",
        "--save-model",
        "--track",
        "--trust-remote-code",
        "--trust-remote-tokenizer",
        "--dry-run",
        "--json",
        "--quiet",
        "-q",
    ),
    *(
        "--record",
        "--method",
        "--phase",
        "--top-k",
        "--threshold",
        "--per-layer",
        "--per-layer-share",
        "--max-q",
    ),
    *("--direction", "--control"),
    *("--objectives", "--epochs", "--num-epochs", "--batch-size", "--learning-rate", "--warmup-steps"),
    *("--gradient-accumulation-steps", "--gradient-checkpointing", "--processes"),
]


def commands():
    return typer.main.get_command(app).commands


def harness(*arguments: str, **environment: str) -> str:
    """Run the command in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def completions(line: str) -> list[str]:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return harness(_HARNESS_COMPLETE="complete_bash", **words).split()


@pytest.mark.parametrize("name", STEPS)
def test_a_run_and_its_steps_have_these_flags(name):
    found = [flag for option in commands()[name].params if option.name != "folder" for flag in option.opts]
    # What another engine recorded takes the place of capture alone.
    own = ["--from"] if name == "capture" else []
    assert [flag for flag in found if flag not in own] == FLAGS
    assert {*own} <= {*found}


def test_each_setting_with_a_flag_reaches_the_configuration_by_it(monkeypatch):
    given = {
        "--limit": ("identify=50,test=100", {"identify": 50, "test": 100}),
        "--tasks": ("a, b", ["a", "b"]),
        "--baselines": ("none", []),
        "--capability": ("quick", ["quick"]),
        "--control": ("c", ["c"]),
        "--data-dir": ("folder", [Path("folder")]),
        "--include": ("folder", [Path("folder")]),
        "--objectives": ("refuse=1,retain_kl=0.5", {"refuse": 1.0, "retain_kl": 0.5}),
    }
    switches = (
        "--forced-start",
        "--save-model",
        "--trust-remote-code",
        "--trust-remote-tokenizer",
        "--gradient-checkpointing",
    )
    seen = {}
    monkeypatch.setattr(
        "harness.cli.pipeline.run_with", lambda command, flags, *rest: seen.update(flags) or 0
    )
    for each in RunConfig.declared():
        for flag in each.flags:
            seen.clear()
            value, expected = given.get(flag, ("7", None))
            assert main(["run", flag] if flag in switches else ["run", flag, value]) == 0
            assert list(seen) == [each.name]
            assert expected is None or seen[each.name] == expected
            assert flag not in switches or seen[each.name] is True


def test_an_option_says_the_default_of_its_setting():
    helps = {option.opts[0]: option.help for option in commands()["run"].params}
    method = RunConfig().selection.method
    assert (
        helps["--seed"] == "Seed of every random choice: splits, refusals, random draws, training order. [0]"
    )
    assert helps["--method"] == f"How to score experts; see docs/selection.md. [{method}]"
    assert helps["--save-model"] == "Keep each trained variant as a whole checkpoint."
    assert helps["--tasks"].endswith("Comma-separated, or none.")
    assert helps["--data-dir"].endswith("May be repeated.")
    assert "One of prompt, generation, all, decision, reasoning, answer. [all]" in helps["--phase"]


def leaves(command):
    below = getattr(command, "commands", {})
    return [leaf for each in below.values() for leaf in leaves(each)] or [command]


def test_every_option_and_argument_of_every_command_is_explained():
    found = [parameter for command in leaves(typer.main.get_command(app)) for parameter in command.params]
    assert len(found) > 250
    assert [parameter.name for parameter in found if not parameter.help] == []


def test_a_commands_docstring_explains_its_options_and_they_are_not_listed_twice():
    check = commands()["check"]
    helps = {parameter.name: parameter.help for parameter in check.params}
    assert helps["junit"] == "Also write JUnit XML."
    assert "Args" not in check.help
    evaluate = commands()["judges"].commands["evaluate"]
    assert "Column of ids. [id]" in {parameter.help for parameter in evaluate.params}


def test_the_listing_says_what_each_command_says_of_itself():
    group = typer.main.get_command(app)
    for name, listed in group.listed.items():
        first = group.commands[name].help.split("\n\n")[0]
        assert " ".join(first.split()) == listed.help


@pytest.mark.parametrize(
    "words", [[], ["run"], ["evaluate"], ["report"], ["tasks"], ["tasks", "list"], ["models", "inspect"]]
)
def test_h_is_help(words, capsys):
    assert main([*words, "-h"]) == 0
    short = capsys.readouterr().out
    assert main([*words, "--help"]) == 0
    assert capsys.readouterr().out == short
    assert "Show this message and exit." in short


def test_the_listing_names_every_command_and_option(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (*commands(), "--version", "--debug", "--install-completion", "--help", "-h"):
        assert f" {word} " in text


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("harness ", {"run", "report", "models"}),
        ("harness --ver", {"--version"}),
        ("harness ev", {"evaluate"}),
        ("harness tasks ", {"list", "show"}),
        ("harness run --", {flag for flag in FLAGS if flag.startswith("--")}),
        ("harness evaluate --top-", {"--top-k", "--top-p"}),
        ("harness run --judge ", {"builtin", "keyword"}),
        ("harness run --engine ", {"transformers", "vllm", "auto"}),
        ("harness run --baselines steer,sys", {"steer,system_prompt"}),
    ],
)
def test_a_shell_completes_commands_options_and_names(line, some):
    found = set(completions(line))
    assert some <= found
    assert all(word.startswith(line.rpartition(" ")[2]) for word in found)


def test_the_completion_script_is_that_of_harness():
    assert "_HARNESS_COMPLETE=complete_bash" in harness("--show-completion", "bash")
    assert "_HARNESS_COMPLETE=complete_zsh" in harness("--show-completion", "zsh")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--show-completion", "bsh"], "no completion for the shell 'bsh', known: bash, zsh, fish"),
        (["--install-completion"], "no process above this one is a known shell: name it, such as"),
    ],
)
def test_a_shell_that_is_not_known_is_one_line(words, message, monkeypatch, capsys):
    import shellingham

    def found_none():
        raise shellingham.ShellDetectionFailure

    monkeypatch.setattr(shellingham, "detect_shell", found_none)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_completion_is_installed_where_the_shell_looks(tmp_path):
    said = harness("--install-completion", "bash", HOME=str(tmp_path))
    assert "bash completion installed in" in said
    assert ".bash_completions/harness.sh" in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"]])
def test_the_listing_imports_no_command_and_nothing_that_commands_need(words):
    code = (
        f"import json, sys; from harness.cli.main import main; assert main({words}) == 0;"
        "print(json.dumps(list(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stderr))
    assert not imported & {"torch", "transformers", "pandas", "numpy", "pydantic", "yaml", "harness.config"}
    ours = {name for name in imported if name.startswith("harness.")}
    assert ours <= {
        "harness.base",
        "harness.base.errors",
        "harness.base.visible",
        "harness.cli",
        "harness.cli.main",
        "harness.cli.lazy",
    }
    assert not imported & {"typer.rich_utils", "rich.markdown"}
