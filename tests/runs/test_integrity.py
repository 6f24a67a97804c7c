"""A run folder that is not what the run left is noticed, whatever file it is."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml

from harness.base.errors import BadInputError
from harness.cli.main import main
from harness.runs.integrity import verify_run
from harness.runs.run_folder import MANIFEST, RunFolder


@pytest.fixture(scope="module")
def folder(small_run, tmp_path_factory):
    # Without the checkpoints that were saved, which are large and files like any other.
    copy = shutil.copytree(small_run, tmp_path_factory.mktemp("damaged") / "run")
    for model in copy.glob("variants/*/model"):
        shutil.rmtree(model)
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


def test_any_damaged_file_is_a_clear_error_and_never_a_pass(folder, gates, capsys):
    """Each file is deleted, cut and edited; the commands meet each file with one of the three."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert len(names) > 50
    commands = [["report", str(folder)], ["check", str(folder), "--gates", str(gates)]]
    assert main(commands[1]) == 0
    for number, name in enumerate(names):
        path = folder / name
        content = path.read_bytes()
        for kind, damage in enumerate(DAMAGES.values()):
            if not content:
                continue
            damage(path)
            # A changed manifest may as well name another file, which then is missing.
            named = "" if name == MANIFEST else name.split("/")[-1]
            with pytest.raises(BadInputError, match=re.escape(named)):
                verify_run(folder)
            if kind == number % len(DAMAGES):
                for command in commands:
                    capsys.readouterr()
                    assert main(command) == 2, name
                    out, err = capsys.readouterr()
                    assert out == "", name
                    assert err.count("\n") == 1, name
                    assert named in err, name
            path.write_bytes(content)
    assert main(commands[1]) == 0


def test_a_file_that_no_stage_wrote_is_refused(folder, gates, capsys):
    extra = folder / "variants" / "base" / "verdicts" / "demo_benign.other.jsonl"
    extra.write_text("{}\n")
    assert main(["check", str(folder), "--gates", str(gates)]) == 2
    assert "is not in manifest.json" in capsys.readouterr().err
    extra.unlink()


def test_a_manifest_that_says_a_key_twice_is_refused(folder, gates, capsys):
    path = folder / MANIFEST
    content = path.read_text()
    path.write_text(
        content.replace('"files": {', '"files": {\n    "x": {"size": 1, "sha256": "%s"},' % ("0" * 64), 1)
    )
    assert main(["check", str(folder), "--gates", str(gates)]) == 2
    path.write_text(content)
