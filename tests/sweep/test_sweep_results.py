"""Finished runs are copied to any place that fsspec knows, and back."""

from __future__ import annotations

import uuid

import fsspec
import pytest

from harness.base.errors import BadInputError
from harness.sweep.results import Results


@pytest.fixture(params=["memory", "folder", "file"])
def url(request, tmp_path):
    if request.param == "memory":
        return f"memory://sweep-{uuid.uuid4().hex}/deep"
    return f"file://{tmp_path}/kept" if request.param == "file" else str(tmp_path / "kept")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    for name in ("summary.json", "manifest.json", "variants/base/responses/a.jsonl", "half.partial", ".lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_a_run_comes_back_as_it_was_without_unfinished_files(url, run, tmp_path):
    results = Results(url)
    results.check()
    assert not results.has("one")
    results.keep(run, "one")
    assert results.has("one")
    back = tmp_path / "back" / "one"
    back.parent.mkdir()
    Results(url + "/").fetch("one", back)
    found = {
        path.relative_to(back).as_posix(): path.read_text() for path in back.rglob("*") if path.is_file()
    }
    kept = ("summary.json", "manifest.json", "variants/base/responses/a.jsonl")
    assert found == {name: name for name in kept}


def test_a_run_that_was_cut_off_while_it_was_copied_is_not_there(run, tmp_path, monkeypatch):
    results = Results(f"memory://sweep-{uuid.uuid4().hex}")
    put, copied = Results.put, []

    def fail_at_the_last(self, file, name):
        copied.append(name)
        if name.endswith("summary.json"):
            raise OSError("the line is down")
        put(self, file, name)

    monkeypatch.setattr(Results, "put", fail_at_the_last)
    with pytest.raises(OSError, match="line is down"):
        results.keep(run, "one")
    assert len(copied) == 3
    assert not results.has("one")
    results.fetch("one", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_what_is_here_already_is_not_fetched(run):
    results = Results(f"memory://sweep-{uuid.uuid4().hex}")
    results.keep(run, "one")
    (run / "summary.json").write_text("newer")
    results.fetch("one", run)
    assert (run / "summary.json").read_text() == "newer"


@pytest.mark.parametrize("url", ["nowhere://bucket/x", "s4://bucket"])
def test_a_place_that_fsspec_does_not_know_is_bad_input(url):
    with pytest.raises(BadInputError, match=f"--results {url}: "):
        Results(url)


def test_a_place_that_cannot_be_written_is_told_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="cannot be written to"):
        Results(str(tmp_path / "file" / "below")).check()


def test_names_that_lead_out_of_the_folder_are_refused(run, tmp_path, monkeypatch):
    results = Results(f"memory://sweep-{uuid.uuid4().hex}")
    results.keep(run, "one")
    found = fsspec.filesystem("memory").find(results._root + "/one")
    monkeypatch.setattr(
        results, "_fs", _Lying(results._fs, [*found, results._root + "/one/../../../../etc/passwd"])
    )
    with pytest.raises(OSError, match="is not below"):
        results.fetch("one", tmp_path / "back")


class _Lying:
    """A place that lists a name of its own making."""

    def __init__(self, fs, found):
        self._fs, self._found = fs, found

    def find(self, path):
        return self._found

    def __getattr__(self, name):
        return getattr(self._fs, name)
