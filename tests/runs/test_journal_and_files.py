"""Files appear whole, a journal keeps what is finished, and fingerprints follow content alone."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.files import (
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
