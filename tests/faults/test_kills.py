"""A killed run ends as an undisturbed one, and a full disk ends no run for good."""

from __future__ import annotations

from collections import Counter

import pytest


@pytest.mark.faults
def test_killed_runs_end_with_the_bytes_of_an_undisturbed_one_and_ask_nothing_twice(campaign):
    outcomes = campaign("kills", share=0.1, seed=17)
    assert {name: outcome["fault"] for name, outcome in outcomes.items() if "fault" in outcome} == {}
    kinds = Counter(outcome["kind"] for outcome in outcomes.values())
    assert kinds["at a write"] >= 8
    assert kinds["at a time"] >= 3


@pytest.mark.faults
def test_commands_on_a_full_disk_say_so_in_one_line_and_continue_when_there_is_room(campaign):
    outcomes = campaign("disks", share=0.1, seed=17)
    if not outcomes:
        pytest.skip("only root may mount a small disk")
    assert {name: outcome["fault"] for name, outcome in outcomes.items() if "fault" in outcome} == {}
    assert "said, and continued" in {outcome["outcome"] for outcome in outcomes.values()}
