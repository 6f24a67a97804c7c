"""What examples/ holds runs as its page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory) -> Path:
    """A folder with a `harness` of this Python and checkout, as an installed one stands in the PATH."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "harness"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harness "$@"\n')
    script.chmod(0o755)
    return folder


def run(bin_folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    name, *rest = map(str, words)
    program = [sys.executable] if name.endswith(".py") else []
    path = os.pathsep.join([str(bin_folder), os.environ["PATH"]])
    return subprocess.run(
        [*program, str(EXAMPLES / name), *rest],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
    )


def test_the_page_lists_every_example_and_none_is_long():
    names = {path.name for path in EXAMPLES.iterdir() if path.name not in ("README.md", "__pycache__")}
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w.]+)\)", page)) == names
    for name in names - {"plugin", "ci", "cluster"}:
        assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 80, name


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "code", "said"), [("1e-3", 3, "FAIL"), ("1e-9", 0, "PASS")])
def test_a_careless_fine_tuning_fails_the_gates_and_one_that_changes_nothing_passes(
    bin_folder, tmp_path, rate, code, said
):
    ended = run(bin_folder, "guard_finetuning.py", tmp_path, "--learning-rate", rate)
    assert ended.returncode == code, ended.stderr
    assert f"{said}  declines no more harmless requests than before" in ended.stdout
    assert "PASS  declines no less than before" in ended.stdout


@pytest.mark.slow
def test_two_checkpoints_are_compared_in_ci(bin_folder, tmp_path):
    words = ("--tasks", "demo_harmful,demo_benign", "--capability", "none")
    ended = run(bin_folder, "compare_in_ci.sh", "demo", "demo", tmp_path / "out", *words)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(" PASS ") == 2
    assert (tmp_path / "out/gates.xml").is_file()
    assert json.loads((tmp_path / "out/gates.sarif").read_text())["runs"]
    assert "declines no less than before" in (tmp_path / "out/gates.md").read_text()


@pytest.mark.slow
def test_a_method_of_ones_own_selects_experts(bin_folder, tmp_path):
    ended = run(bin_folder, "add_method.py", tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    selection = json.loads((tmp_path / "run/variants/unsafe_experts/selection.json").read_text())
    assert (selection["method"], len(selection["experts"])) == ("rarely_safe", 8)
    assert "rank by risk_diff" in ended.stdout


@pytest.mark.slow
def test_a_judge_of_ones_own_labels_answers(bin_folder, tmp_path):
    ended = run(bin_folder, "add_judge.py", tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"\d+ of 72 answers are judged differently", ended.stdout)
    verdicts = tmp_path / "run/variants/unsafe_experts/verdicts/demo_harmful.house_phrases.jsonl"
    assert len(verdicts.read_text().splitlines()) == 12


def test_a_run_is_read_in_pandas(bin_folder, small_run):
    ended = run(bin_folder, "pandas_run.py", small_run)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"\d+ verdicts differ between base and unsafe_experts", ended.stdout)
    assert "risk_diff" in ended.stdout
