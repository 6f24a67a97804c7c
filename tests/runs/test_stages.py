"""`@stage`: what is skipped, what is done again and what is said about it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field

import pytest

from harness.base.files import read_json, sha256, write_text
from harness.runs.journal import BatchJournal
from harness.runs.run_folder import RunFolder
from harness.runs.stages import stage

ANSWERS, ROUTING = "answers/demo.jsonl", "answers/demo.counts"


@dataclass
class Run:
    """A run with one setting; it notes what was done."""

    folder: RunFolder
    setting: int = 1
    done: list[str] = field(default_factory=list)


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.describe({})
    return Run(folder)


def again(run: Run, **changes) -> Run:
    """Open the folder again, as a later command does."""
    return Run(RunFolder(run.folder.path), **changes)


def answer_key(run: Run, task: str) -> str:
    return f"{task} {run.setting}"


@stage(
    "answer {task}",
    writes=("answers/{task}.jsonl", "answers/{task}.counts"),
    key=answer_key,
    keeps="answers/{task}.jsonl.partial",
)
def answer(run: Run, task: str) -> None:
    run.done.append(task)
    path = run.folder.path / "answers"
    journal = BatchJournal(path / f"{task}.jsonl", answer_key(run, task))
    journal.finish(0, [{"id": task}])
    write_text(path / f"{task}.jsonl", f"answers with {run.setting}\n")
    write_text(path / f"{task}.counts", "counts")


def test_a_stage_is_done_once_for_each_of_its_arguments(run):
    answer(run, "demo")
    answer(run, task="other")
    assert answer.is_done(run, "demo")
    later = again(run)
    answer(later, "demo")
    answer(later, "other")
    assert (run.done, later.done) == (["demo", "other"], [])
    assert list(later.folder.state["stages"]) == ["answer demo", "answer other"]


def test_it_records_fingerprint_seconds_and_the_hash_of_each_file(run):
    answer(run, "demo")
    record = read_json(run.folder.path / "run.json")["stages"]["answer demo"]
    assert (record["state"], record["fingerprint"]) == ("done", "demo 1")
    assert record["seconds"] >= 0
    assert record["files"] == {
        name: {"size": path.stat().st_size, "sha256": sha256(path)}
        for name in (ANSWERS, ROUTING)
        for path in [run.folder.path / name]
    }


def edit(path):
    path.write_text(path.read_text().replace("with", "wish"))


def truncate(path):
    path.write_text(path.read_text()[:-3])


def edit_and_keep_the_time(path):
    stat = path.stat()
    edit(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("damage", "file", "said"),
    [
        (edit, ANSWERS, "is not what the run wrote"),
        (edit_and_keep_the_time, ANSWERS, "is not what the run wrote"),
        (truncate, ANSWERS, "is not what the run wrote"),
        (truncate, ROUTING, "is not what the run wrote"),
        (os.unlink, ANSWERS, "is missing"),
        (os.unlink, ROUTING, "is missing"),
    ],
)
def test_a_file_that_differs_is_made_again_and_named(run, capsys, damage, file, said):
    answer(run, "demo")
    before = (run.folder.path / file).read_bytes()
    damage(run.folder.path / file)
    later = again(run)
    assert not answer.is_done(later, "demo")
    answer(later, "demo")
    assert later.done == ["demo"]
    assert (run.folder.path / file).read_bytes() == before
    assert capsys.readouterr().err == f"{file} {said}: making it again\n"


def test_another_fingerprint_is_other_work_and_nothing_is_said(run, capsys):
    answer(run, "demo")
    later = again(run, setting=2)
    answer(later, "demo")
    assert later.done == ["demo"]
    assert (run.folder.path / ANSWERS).read_text() == "answers with 2\n"
    assert capsys.readouterr().err == ""


def test_a_touched_or_copied_file_with_the_same_content_is_what_the_run_wrote(run, tmp_path):
    answer(run, "demo")
    os.utime(run.folder.path / ANSWERS, ns=(0, 0))
    answer(later := again(run), "demo")
    copied = Run(RunFolder(shutil.copytree(run.folder.path, tmp_path / "copy")))
    answer(copied, "demo")
    assert later.done == copied.done == []


def test_a_record_of_an_earlier_version_has_no_hashes_and_is_done_again(run):
    answer(run, "demo")
    del run.folder.state["stages"]["answer demo"]["files"]
    answer(run, "demo")
    assert run.done == ["demo", "demo"]


def test_a_file_is_read_once_per_command(run, monkeypatch):
    answer(run, "demo")
    read = []
    monkeypatch.setattr("harness.runs.run_folder.sha256", lambda path: read.append(path.name) or sha256(path))
    later = again(run)
    for _ in range(3):
        answer(later, "demo")
    later.folder.write_manifest()
    assert sorted(read) == ["demo.counts", "demo.jsonl", "run.json"]


def test_the_journal_is_removed_after_the_stage_is_recorded(run, monkeypatch):
    """In the other order a run that is killed in between would answer everything again."""
    journal = run.folder.path / "answers/demo.jsonl.partial"

    def killed(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        answer(run, "demo")
    assert (journal / "00000.jsonl").is_file()
    monkeypatch.undo()

    monkeypatch.setattr(RunFolder, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        answer(later := again(run), "demo")
    assert answer.is_done(later, "demo")
    assert journal.is_dir()
    monkeypatch.undo()

    answer(last := again(run), "demo")
    assert last.done == []
    assert not journal.exists()


def test_a_stage_that_fails_is_done_again(run):
    answer(run, "demo")
    failing = again(run, setting=2)
    failing.done = None
    with pytest.raises(AttributeError):
        answer(failing, "demo")
    assert read_json(run.folder.path / "run.json")["stages"]["answer demo"]["state"] == "started"
    answer(later := again(run), "demo")
    assert later.done == ["demo"]


@stage("prove", writes=("proof.json", "model/"), key=lambda run, *, save: f"{save}")
def prove(run: Run, *, save: bool) -> None:
    run.done.append("prove")
    write_text(run.folder.path / "proof.json", "{}")
    if save:
        write_text(run.folder.path / "model/config.json", "{}")
        write_text(run.folder.path / "model/shards/one", "1")


def test_a_folder_stands_for_its_files_and_may_stay_away(run, capsys):
    prove(run, save=False)
    assert list(run.folder.state["stages"]["prove"]["files"]) == ["proof.json"]
    prove(run, save=True)
    assert list(run.folder.state["stages"]["prove"]["files"]) == [
        "proof.json",
        "model/config.json",
        "model/shards/one",
    ]
    (run.folder.path / "model/shards/one").unlink()
    prove(later := again(run), save=True)
    assert later.done == ["prove"]
    assert "model/shards/one is missing" in capsys.readouterr().err


@stage("ask", writes="asked", key=lambda run: "", again=lambda run: run.setting > 1)
def ask(run: Run) -> None:
    run.done.append("ask")
    write_text(run.folder.path / "asked", "")


def test_what_is_to_be_done_each_time_is(run):
    for _ in range(2):
        ask(run)
    ask(later := again(run, setting=2))
    assert (run.done, later.done) == (["ask"], ["ask"])


@stage("forget", writes="nowhere", key=lambda run: "")
def forget(run: Run) -> None:
    pass


def test_a_stage_that_does_not_write_its_file_fails(run):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        forget(run)
    assert not forget.is_done(run)
