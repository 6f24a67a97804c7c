"""What a session says of its run."""

from __future__ import annotations

from harness.config import make_config
from harness.pipeline.plan import make_plan
from harness.pipeline.session import Session
from harness.runs.run_folder import RunFolder


def test_splits_may_have_a_seed_of_their_own(tmp_path):
    def splits(**flags):
        plan = make_plan(make_config({"limit": 20, **flags}))
        seeds = Session(plan, RunFolder(tmp_path / "run")).seeds()
        return (
            [prompt.id for prompt in plan.prompts("test")["demo_benign"]],
            seeds["splits"],
            seeds["refusals"],
        )

    first, second = splits(seed=1, split_seed=0), splits(seed=2, split_seed=0)
    assert first == (second[0], 0, 1)
    assert second[2] == 2
    assert splits(seed=1)[0] != first[0]
    assert splits(seed=0)[0] == first[0]
