"""Which run is next: one of a group first, the others with what it lends; a failure stops nobody else."""

from __future__ import annotations

import pytest

from harness.base.errors import BadInputError
from harness.sweep.drive import drive, opened
from harness.sweep.folder import CellState, SweepFolder, begun
from harness.sweep.schema import read_sweep


class Recording:
    """An executor whose runs end one at a time, in the order in which they were taken on."""

    def __init__(self, room=10, failing=()):
        self.room, self.failing = room, failing
        self.taken, self.together, self.closed = [], [], False
        self._running = []

    def free(self):
        return len(self._running) < self.room

    def submit(self, job):
        self._running.append(job)
        self.taken.append(job)

    def wait(self, seconds):
        self.together.append(sorted(job.name for job in self._running))
        if not self._running:
            return []
        job = self._running.pop(0)
        failed = any(word in job.name for word in self.failing)
        state = {"state": "failed", "reason": "no such model"} if failed else {"state": "finished"}
        return [(job.name, begun(self.cells[job.name], "here", 1).model_copy(update=state))]

    def close(self):
        self.closed = True


def run(tmp_path, file, executor):
    sweep, folder = read_sweep(file), SweepFolder(tmp_path / "out")
    executor.cells = {cell.name: cell for cell in sweep.cells}
    with opened(folder, sweep):
        outcome = drive(sweep, folder, executor)
    assert executor.closed
    return sweep, folder, outcome


def test_one_run_of_each_base_goes_first_and_lends_to_the_others(tmp_path, sweep_file):
    executor = Recording()
    file = sweep_file(axes={"limit": [8, 9], "selection.top_k": [4, 8, 12]})
    sweep, _, outcome = run(tmp_path, file, executor)
    first = [cell.name for cell in sweep.cells if cell.config.selection.top_k == 4]
    assert executor.together[0] == sorted(first)
    assert [job.donor for job in executor.taken[:2]] == [None, None]
    group = {cell.name: cell.config.limit for cell in sweep.cells}
    for job in executor.taken[2:]:
        assert job.donor in first
        assert group[job.donor] == group[job.name]
    assert len(outcome.redone) == 6
    assert not outcome.failed


def test_a_run_that_fails_does_not_stop_the_others(tmp_path, sweep_file):
    executor = Recording(failing=["limit-8"])
    file = sweep_file(axes={"limit": [8, 9], "selection.top_k": [4, 8]})
    _, folder, outcome = run(tmp_path, file, executor)
    assert set(outcome.failed.values()) == {"no such model"}
    assert sorted(name.split("_")[0] for name in outcome.failed) == ["limit-8", "limit-8"]
    assert sum(state.state == "finished" for state in outcome.states.values()) == 2
    # A run that failed has nothing to lend.
    donors = [job.donor for job in executor.taken if job.donor]
    assert donors
    assert all("limit-9" in donor for donor in donors)
    assert all(folder.state(name).reason == "no such model" for name in outcome.failed)


def test_what_is_finished_is_not_done_again_and_what_failed_is(tmp_path, sweep_file):
    file = sweep_file(axes={"seed": [0, 1, 2]})
    run(tmp_path, file, Recording(failing=["seed-1"]))
    again = Recording()
    sweep, _, outcome = run(tmp_path, file, again)
    assert [job.name for job in again.taken] == [sweep.cells[1].name]
    assert again.taken[0].donor in (sweep.cells[0].name, sweep.cells[2].name)
    assert outcome.redone == [sweep.cells[1].name]
    assert not outcome.failed
    # A longer axis adds its own runs alone.
    more = Recording()
    sweep, _, _ = run(tmp_path, sweep_file(axes={"seed": [0, 1, 2, 3]}), more)
    assert [job.name for job in more.taken] == [sweep.cells[3].name]


def test_no_more_runs_at_a_time_than_there_is_room_for(tmp_path, sweep_file):
    executor = Recording(room=2)
    run(tmp_path, sweep_file(axes={"limit": [4, 5, 6, 7, 8]}), executor)
    assert max(map(len, executor.together)) == 2


def test_two_processes_do_not_do_one_sweep(tmp_path, sweep_file):
    sweep, folder = read_sweep(sweep_file(axes={"seed": [0]})), SweepFolder(tmp_path / "out")
    with (
        opened(folder, sweep),
        pytest.raises(BadInputError, match="another process runs the sweep"),
        opened(folder, sweep),
    ):
        pass


def test_the_executor_is_closed_when_the_user_stops(tmp_path, sweep_file):
    executor = Recording()
    sweep, folder = read_sweep(sweep_file(axes={"seed": [0]})), SweepFolder(tmp_path / "out")

    def stop(seconds):
        raise KeyboardInterrupt

    executor.wait = stop
    with pytest.raises(KeyboardInterrupt):
        drive(sweep, folder, executor)
    assert executor.closed


def test_states_say_what_runs_only_once_it_does(tmp_path, sweep_file):
    """A cluster may keep a run waiting; a state of an earlier attempt is no sign of life."""
    file = sweep_file(axes={"seed": [0]})
    sweep, folder = read_sweep(file), SweepFolder(tmp_path / "out")
    (cell,) = sweep.cells
    folder.keep(cell.name, begun(cell, "a dead node", 1).model_copy(update={"started": 1.0}))
    executor, seen = Recording(), []
    executor.cells = {cell.name: cell}
    ends, looks = executor.wait, []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            folder.keep(cell.name, begun(cell, "a node", 2))
        return ends(seconds) if len(looks) == 4 else []

    executor.wait = wait
    drive(sweep, folder, executor, show=lambda states: seen.append(states[cell.name].state))
    assert seen == ["waiting", "waiting", "running", "running", "finished"]
    assert CellState().state == "waiting"
