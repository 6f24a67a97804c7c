"""Damage to any file of a run folder reaches no figure, whatever command reads it."""

from __future__ import annotations

from collections import Counter

import pytest


@pytest.mark.faults
def test_damage_is_refused_done_again_or_without_effect(campaign):
    outcomes = campaign("damages", share=0.04, seed=17)
    assert {name: outcome["fault"] for name, outcome in outcomes.items() if "fault" in outcome} == {}
    counts = Counter(outcome["outcome"] for outcome in outcomes.values())
    assert counts["refused"] > 30
    assert counts["done again and said"] > 5
    commands = {name.split(", ")[1] for name in outcomes}
    assert commands == {"check", "report", "leaderboard", "analyze", "export", "measure", "evaluate", "run"}
