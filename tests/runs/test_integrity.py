"""A run folder that is not what the run left is noticed, whatever file it is."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

from harness.base.errors import BadInputError
from harness.cli.main import main
from harness.runs.integrity import verify_run
from harness.runs.layout import MANIFEST
from harness.runs.run_folder import RunFolder


@pytest.fixture(scope="module")
def folder(small_run, tmp_path_factory):
    # Without what is large and a file like any other: the checkpoints that were saved, and all deltas but one.
    large = shutil.ignore_patterns("model")
    copy = shutil.copytree(small_run, tmp_path_factory.mktemp("damaged") / "run", ignore=large)
    for name in ("all_experts", "random_experts"):
        (copy / "variants" / name / "delta.safetensors").unlink()
    RunFolder(copy).write_manifest()
    return copy


@pytest.fixture(scope="module")
def gates(tmp_path_factory):
    path = tmp_path_factory.mktemp("gates") / "gates.yaml"
    gate = {"name": "g", "metric": "refusal_rate", "task": "demo_benign", "at_most": 0.4}
    path.write_text(yaml.safe_dump({"gates": [gate]}))
    return path


def _truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _edit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {"deleted": lambda path: path.unlink(), "cut": _truncate, "edited": _edit}


def _commands(folder, gates):
    return [["report", str(folder)], ["check", str(folder), "--gates", str(gates)]]


def _assert_refused(command, capsys, said):
    """The command ends with bad input, one line on stderr that holds `said`, and nothing on stdout."""
    capsys.readouterr()
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_any_damaged_file_is_a_clear_error_and_never_a_pass(folder, gates, capsys):
    """Each file is deleted, cut and edited; the commands meet each file with one of the three."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names.remove(MANIFEST)
    assert len(names) > 50
    commands = _commands(folder, gates)
    assert main(commands[1]) == 0
    for number, name in enumerate(names):
        path = folder / name
        content = path.read_bytes()
        for kind, damage in enumerate(DAMAGES.values()):
            if not content:
                continue
            damage(path)
            with pytest.raises(
                BadInputError, match=rf"{re.escape(name)} (is missing|was cut off|was changed)"
            ):
                verify_run(folder)
            if kind == number % len(DAMAGES):
                for command in commands:
                    _assert_refused(command, capsys, name)
            path.write_bytes(content)
    assert main(commands[1]) == 0


def _in_the_entry_of_the_table(manifest, old, new):
    """Change the manifest where it lists the table of experts."""
    before, entry, rest = manifest.read_text().partition('"experts.parquet"')
    assert entry
    changed = re.sub(old, new, entry + rest, count=1)
    assert changed != entry + rest
    manifest.write_text(before + changed)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "manifest.json: no such file"),
        (_truncate, "manifest.json: not valid JSON"),
        (
            lambda path: path.write_text(path.read_text() + " "),
            "manifest.json: changed since the run wrote it",
        ),
        (
            lambda path: path.write_text(
                path.read_text().replace(
                    '"files": {', '"files": {\n    "run.json": {"size": 1, "sha256": "%s"},' % ("0" * 64), 1
                )
            ),
            "manifest.json: not valid JSON: 'run.json' is given twice",
        ),
        (
            lambda path: _in_the_entry_of_the_table(path, "experts.parquet", "expert.parquet"),
            "expert.parquet is missing",
        ),
        (
            lambda path: _in_the_entry_of_the_table(path, r'"size": ', '"size": 9'),
            "experts.parquet was cut off",
        ),
        (
            lambda path: _in_the_entry_of_the_table(path, r'"sha256": "[0-9a-f]{8}', '"sha256": "00000000'),
            "experts.parquet was changed",
        ),
        (
            lambda path: _in_the_entry_of_the_table(path, r'"sha256": "[0-9a-f]{8}', '"sha256": "0000000x'),
            "manifest.json: files.experts.parquet.sha256",
        ),
    ],
    ids=["deleted", "cut", "a space more", "a key twice", "name", "size", "digest", "no digest"],
)
def test_a_manifest_that_is_not_the_runs_is_refused(folder, gates, capsys, damage, said):
    path = folder / MANIFEST
    content = path.read_bytes()
    try:
        damage(path)
        with pytest.raises(BadInputError, match=re.escape(said)):
            verify_run(folder)
        for command in _commands(folder, gates):
            _assert_refused(command, capsys, said)
    finally:
        path.write_bytes(content)


def test_a_file_that_no_stage_wrote_is_refused(folder, gates, capsys):
    extra = folder / "variants" / "base" / "verdicts" / "demo_benign.other.jsonl"
    extra.write_text("{}\n")
    assert main(["check", str(folder), "--gates", str(gates)]) == 2
    assert "is not in manifest.json" in capsys.readouterr().err
    extra.unlink()
