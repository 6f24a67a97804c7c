"""A training that was killed goes on to what an undisturbed one learns."""

from __future__ import annotations

import random

import pytest
from end_to_end.killing import driver

TRAIN = ["train", "--limit", "16", "--baselines", "none", "--set", "training.max_steps=10"]
TRAIN += ["--set", "training.checkpoint_every=2", "--set", "training.batch_size=8"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with driver([*TRAIN, "--output", str(folder / "first")], folder) as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["--objectives", "refuse=1,retain_kl=1,prefer=1", "--set", "training.lora_rank=4"],
        ["--set", "training.early_stopping.every=3", "--set", "training.early_stopping.prompts=8"],
    ],
    ids=["default", "objectives and LoRA", "early stopping"],
)
def test_a_training_killed_at_several_steps_goes_on_to_the_same_delta(runs, tmp_path, settings):
    """A checkpoint every second of ten steps; the third run is killed while it writes one."""
    first = random.Random(len(settings)).choice([3, 5])
    moments = [rf"step: {first}$", r"step: 7$", r"checkpoint:checkpoint.partial", r"step: [0-5]$"]
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    # The fourth run begins at step 6, so it never comes to be killed.
    command = [*TRAIN, *settings, "--output"]
    ends = [runs.end_of([*command, str(killed)], moment) for moment in (*moments, None)]
    assert ends == ["signal 9", "signal 9", "signal 9", "code 0", "code 0"]
    assert runs.end_of([*command, str(undisturbed)]) == "code 0"
    for name in ("delta.safetensors", "delta.json", "train.jsonl"):
        file = f"variants/unsafe_experts/{name}"
        assert (killed / file).read_bytes() == (undisturbed / file).read_bytes(), name
    assert not [path for path in killed.rglob("*") if "partial" in path.name]
