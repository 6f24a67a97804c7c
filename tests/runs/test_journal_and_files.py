"""Files appear whole, a journal keeps what is finished, and fingerprints follow content alone."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import HarnessError
from harness.base.files import (
    move_folder,
    read_json,
    read_jsonl,
    sha256,
    write_json,
    write_jsonl,
    write_text,
    write_whole,
)
from harness.base.fingerprint import fingerprint
from harness.runs.journal import BatchJournal

_NO_SURROGATES = st.text(st.characters(exclude_categories=["Cs"]))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def half(temporary):
        temporary.write_text("ha")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        write_whole(path, half)
    assert [item.name for item in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_while_it_is_written_the_file_is_not_there(tmp_path):
    path = tmp_path / "deep" / "file.txt"

    def write(temporary):
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename within one folder cannot be half done

    write_whole(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_does_not_have_are_refused(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"value": value})
    with pytest.raises(ValueError, match="JSON"):
        write_jsonl(tmp_path / "x.jsonl", [{"value": value}])
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.dictionaries(_NO_SURROGATES, _NO_SURROGATES, max_size=3), max_size=5))
def test_rows_of_any_text_come_back(tmp_path_factory, rows):
    """Line separators such as U+2028 and U+0085 do not end a record."""
    path = tmp_path_factory.mktemp("rows") / "x.jsonl"
    write_jsonl(path, rows)
    assert read_jsonl(path) == rows


def test_text_is_utf8_with_plain_newlines(tmp_path):
    write_json(tmp_path / "x.json", {"a": "ü\n"})
    assert (tmp_path / "x.json").read_bytes() == '{\n  "a": "ü\\n"\n}\n'.encode()
    assert read_json(tmp_path / "x.json") == {"a": "ü\n"}


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_journal_gives_back_finished_batches_alone(tmp_path):
    journal = BatchJournal(tmp_path / "x.jsonl", "k1")
    journal.finish(2, [{"id": "a"}])
    again = BatchJournal(tmp_path / "x.jsonl", "k1")
    assert again.rows(2) == [{"id": "a"}]
    assert again.rows(0) is None
    assert again.path(2, ".safetensors") == tmp_path / "x.jsonl.partial" / "00002.safetensors"


def test_a_batch_without_rows_is_finished_too(tmp_path):
    journal = BatchJournal(tmp_path / "x.jsonl", "k1")
    journal.finish(0, [])
    assert journal.rows(0) == []


def test_a_journal_of_other_work_is_emptied(tmp_path):
    BatchJournal(tmp_path / "x.jsonl", "k1").finish(0, [{"id": "a"}])
    assert BatchJournal(tmp_path / "x.jsonl", "k2").rows(0) is None
    assert BatchJournal(tmp_path / "x.jsonl", "k1").rows(0) is None


def test_a_journal_without_a_whole_marker_is_emptied(tmp_path):
    BatchJournal(tmp_path / "x.jsonl", "k1").finish(0, [{"id": "a"}])
    (tmp_path / "x.jsonl.partial" / "fingerprint").unlink()
    assert BatchJournal(tmp_path / "x.jsonl", "k1").rows(0) is None


def test_a_removed_journal_leaves_nothing(tmp_path):
    journal = BatchJournal(tmp_path / "x.jsonl", "k1")
    journal.finish(0, [{"id": "a"}])
    journal.remove()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=80, deadline=None)
@given(value=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(), max_size=5))
def test_the_order_of_keys_does_not_change_a_fingerprint(value):
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))


@settings(max_examples=80, deadline=None)
@given(
    a=st.lists(st.integers() | st.booleans() | _NO_SURROGATES),
    b=st.lists(st.integers() | st.booleans() | _NO_SURROGATES),
)
def test_different_content_has_different_fingerprints(a, b):
    assert (fingerprint(a) == fingerprint(b)) == (json.dumps(a) == json.dumps(b))


def test_a_fingerprint_is_the_same_on_every_day():
    assert fingerprint({"a": 1, "b": [2, "ü"]}) == fingerprint({"b": [2, "ü"], "a": 1})
    assert len(fingerprint(None)) == 32


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.replace(b"one", b"two"),
        lambda content: content[:-4],
        lambda content: b"",
        lambda content: b"\x80\xff\n{",
        lambda content: content + b'{"id": "b"}\n',
    ],
    ids=["edited", "cut", "emptied", "no JSON", "a row more"],
)
def test_a_batch_that_is_not_as_it_was_written_is_named_and_not_finished(tmp_path, capsys, damage):
    journal = BatchJournal(tmp_path / "x.jsonl", "k1")
    journal.finish(0, [{"id": "a", "response": "one"}])
    path = journal.path(0, ".jsonl")
    path.write_bytes(damage(path.read_bytes()))
    again = BatchJournal(tmp_path / "x.jsonl", "k1")
    assert again.rows(0) is None
    assert capsys.readouterr().err == f"{path}: this batch is not what the run wrote: making it again\n"
    again.finish(0, [{"id": "a"}])
    assert again.rows(0) == [{"id": "a"}]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"others")])
def test_a_batch_whose_routing_is_another_is_not_finished(tmp_path, damage):
    journal = BatchJournal(tmp_path / "x.jsonl", "k1")
    journal.path(0, ".safetensors").write_bytes(b"counts")
    journal.finish(0, [{"id": "a"}])
    assert journal.rows(0) == [{"id": "a"}]
    damage(journal.path(0, ".safetensors"))
    assert journal.rows(0) is None


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_mode_of_a_file_is_that_of_the_umask_whoever_writes_it(tmp_path, mask, mode):
    from safetensors.numpy import save_file

    before = os.umask(mask)
    try:
        write_text(tmp_path / "text", "")
        tensors = {"a": np.zeros(3)}
        write_whole(tmp_path / "tensors", lambda temporary: save_file(tensors, temporary))
        folder = tmp_path / "half"
        folder.mkdir()
        save_file(tensors, folder / "tensors")
        move_folder(folder, tmp_path / "whole")
    finally:
        os.umask(before)
    for name in ("text", "tensors", "whole/tensors"):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode, name


def test_a_file_and_its_folder_are_synced_before_anyone_sees_it(tmp_path, monkeypatch):
    """With power lost after the rename, the name must not lead to an empty file."""
    path, synced = tmp_path / "file", []
    fsync = os.fsync

    def noted(opened):
        synced.append((Path(f"/proc/self/fd/{opened}").readlink(), path.exists()))
        fsync(opened)

    monkeypatch.setattr(os, "fsync", noted)
    write_text(path, "text")
    (content, seen_before), (folder, seen_after) = synced
    assert (content.suffix, seen_before) == (".tmp", False)
    assert (folder, seen_after) == (tmp_path, True)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_line_with_file_needed_and_free_from_every_writer(small_disk):
    import pandas as pd
    from safetensors.numpy import save_file

    values = np.random.default_rng(0).random(50_000)
    table = pd.DataFrame({"a": values})
    write_text(small_disk / "small", "room for this")

    def wrapped(path):
        """datasets and others raise errors of their own from it."""
        try:
            path.write_bytes(values.tobytes())
        except OSError as error:
            raise RuntimeError("while a table was written") from error

    for write, size in (
        (lambda path: path.write_bytes(values.tobytes()), values.nbytes),
        (wrapped, None),
        (lambda path: save_file({"a": values}, path), values.nbytes),
        (lambda path: table.to_parquet(path), None),
    ):
        with pytest.raises(HarnessError) as error:
            write_whole(small_disk / "big", write, size)
        line = str(error.value)
        assert line.startswith(f"{small_disk / 'big'}: the disk is full: ")
        assert (" 400.0 kB needed, " if size else "is full: ") in line
        assert " kB free; the same command continues when there is room" in line
        assert error.value.exit_code == 1
        assert [path.name for path in small_disk.iterdir()] == ["small"]
