"""What a sweep remembers of its runs, and what finished runs lend to others."""

from __future__ import annotations

import json
import os

import pytest

from harness.base.errors import BadInputError
from harness.base.files import read_json, sha256, write_json
from harness.runs.run_folder import RunFolder
from harness.sweep.folder import CellState, SweepFolder, begun, lend_base
from harness.sweep.schema import read_sweep


@pytest.fixture
def cells(sweep_file):
    return read_sweep(sweep_file(axes={"seed": [0, 1]})).cells


def finished(cell):
    return begun(cell, "here", 1).model_copy(update={"state": "finished"})


def test_only_a_run_with_these_settings_and_this_harness_counts_as_finished(tmp_path, cells):
    folder, cell = SweepFolder(tmp_path / "sweep"), cells[0]
    assert not folder.is_finished(cell)
    folder.keep(cell.name, finished(cell))
    assert folder.is_finished(cell)
    assert not folder.is_finished(cells[1])
    for changed in ({"version": "0.0.0"}, {"key": cells[1].key}, {"state": "failed"}, {"weights": "others"}):
        folder.keep(cell.name, finished(cell).model_copy(update=changed))
        assert not folder.is_finished(cell)


def test_a_model_folder_that_changed_makes_its_runs_unfinished(tmp_path, sweep_file):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")
    (cell,) = read_sweep(sweep_file(axes={"model": [str(model)]})).cells
    folder = SweepFolder(tmp_path / "sweep")
    folder.keep(cell.name, finished(cell))
    assert folder.is_finished(cell)
    os.utime(model / "model.safetensors", ns=(1, 1))
    assert not folder.is_finished(cell)


def test_a_damaged_state_says_what_to_delete(tmp_path, cells):
    folder = SweepFolder(tmp_path / "sweep")
    folder.keep(cells[0].name, CellState())
    (folder.path / "cells" / f"{cells[0].name}.json").write_text("{")
    with pytest.raises(
        BadInputError, match=f"not valid JSON: line 1: .*; delete it to run {cells[0].name} again"
    ):
        folder.state(cells[0].name)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(BadInputError, match="something that is not a sweep"):
        SweepFolder(tmp_path).check()
    with pytest.raises(BadInputError, match=r"holds no sweep\.json"):
        SweepFolder(tmp_path).listed()


@pytest.fixture
def donor(tmp_path):
    """A run with results of base and of a variant."""
    run = tmp_path / "runs" / "donor"
    routing = "routing/test/a.safetensors"
    for name in ("routing/a.safetensors", routing, "training/a.jsonl", "variants/base/responses/a.jsonl"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(name)
    (run / "variants" / "unsafe_experts").mkdir()
    (run / "variants" / "unsafe_experts" / "delta.json").write_text("{}")

    def done(fingerprint, *files):
        written = {name: {"size": len(name), "sha256": sha256(run / name)} for name in files}
        return {"fingerprint": fingerprint, "state": "done", "seconds": 3.0, "files": written}

    stages = {
        "capture a": done("1", "routing/a.safetensors"),
        "answer base/a": done("2", "variants/base/responses/a.jsonl", routing),
        "capability base": {"fingerprint": "unfinished 3", "state": "started", "seconds": 1.0},
        "train unsafe_experts": done("4", "variants/unsafe_experts/delta.json"),
        "drift base": done("5"),
    }
    write_json(run / "run.json", {"run_id": "donor", "stages": stages})
    return run


def test_a_run_lends_what_it_knows_of_base_and_nothing_else(tmp_path, donor):
    run = tmp_path / "runs" / "other"
    assert lend_base(donor, run) == ["capture a", "answer base/a"]
    state = read_json(run / "run.json")
    before = read_json(donor / "run.json")["stages"]
    lent = {"seconds": 0.0, "lent_by": "donor"}
    assert state == {"stages": {name: {**before[name], **lent} for name in ("capture a", "answer base/a")}}
    assert (
        run / "variants" / "base" / "responses" / "a.jsonl"
    ).read_text() == "variants/base/responses/a.jsonl"
    assert not (run / "variants" / "unsafe_experts").exists()
    # What was lent for another model or other prompts is not taken for done.
    folder = RunFolder(run)
    assert folder.is_done("capture a", "1")
    assert not folder.is_done("capture a", "of another model")


def test_the_clock_of_the_chat_template_is_lent_too(tmp_path, donor):
    record = read_json(donor / "run.json")
    (donor / "run.json").write_text(json.dumps(record | {"clock": "2026-11-26T12:00:00"}))
    lend_base(donor, tmp_path / "runs" / "other")
    assert read_json(tmp_path / "runs" / "other" / "run.json")["clock"] == "2026-11-26T12:00:00"


def test_a_run_that_was_begun_is_not_lent_to(tmp_path, donor):
    run = tmp_path / "runs" / "other"
    run.mkdir()
    assert lend_base(donor, run) == []
    assert not list(run.iterdir())
    assert lend_base(tmp_path / "runs" / "gone", tmp_path / "runs" / "third") == []
