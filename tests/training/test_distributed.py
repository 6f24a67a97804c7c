"""Several processes train as one does: real processes over gloo, on the CPU."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from loopback import free_port

from harness.base.errors import BadInputError, HarnessError
from harness.config import TrainingConfig
from harness.models.load import ModelRef, load_model
from harness.models.moe import Expert, find_moe
from harness.training import launch
from harness.training.bank import ExpertBank, delta_of
from harness.training.distributed import Ranks
from harness.training.examples import Example
from harness.training.launch import error_of, train_in_processes
from harness.training.loop import train_bank
from harness.training.lora import Lora
from harness.training.resume import Checkpoints

# Of unequal lengths, seven to a batch of four: some batches split unevenly, and one leaves a process without any.
EXAMPLES = [
    Example(tuple(range(10 + i, 20 + 3 * i)), (*range(100 + i, 101 + 3 * i), 2), aim)
    for i, aim in enumerate(["refuse", "retain", "refuse", "refuse", "retain", "refuse", "refuse"])
]
CONFIG = TrainingConfig(epochs=2, batch_size=4, warmup_steps=0, learning_rate=1e-3, processes=2)


def some_experts(moe):
    return [Expert(layer.index, expert) for layer in moe.layers for expert in (0, 2, 5)]


@pytest.fixture
def load(tiny_model, saved_model):
    """Write a checkpoint and load it."""

    def of(family, **config):
        folder = saved_model(tiny_model(family, **config), family)
        return load_model(ModelRef(family, folder), "float32", "cpu")

    return of


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "lora", "more"),
    [
        ("gpt_oss", None, {"gradient_checkpointing": True}),  # transposed, with biases
        ("qwen3_moe", Lora(rank=2, alpha=4.0), {"lora_rank": 2, "lora_alpha": 4.0}),
    ],
)
def test_two_processes_train_as_one(load, family, lora, more):
    saved = load(family)

    def bank():
        torch.manual_seed(0)
        return ExpertBank(saved.moe, some_experts(saved.moe), lora=lora)

    config = CONFIG.model_copy(update=more)
    alone, together, steps = bank(), bank(), []
    expected = train_bank(saved, alone, EXAMPLES, config, seed=0)
    found = train_in_processes(saved, together, EXAMPLES, config, 0, steps.append, dtype="float32")

    assert len(expected.log) == len(found.log) == len(steps) == 4
    for a, b in zip(expected.log, found.log, strict=True):
        assert a["answer_tokens"] == b["answer_tokens"]
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    assert expected.without_gradient == found.without_gradient
    one, two = (delta_of(b, "base", torch.float32) for b in (alone, together))
    for layer, named in one.tensors.items():
        for name, values in named.items():
            torch.testing.assert_close(two.tensors[layer][name], values, rtol=0, atol=1e-5)
            if not (lora and name.endswith("bias")):
                own = saved.moe.layer(layer).weight(name)[one.experts[layer]]
                assert (values - own).abs().max() > 1e-3  # a hundred times what may differ


@pytest.mark.slow
def test_two_machines_train_as_one_process(load, tmp_path, capsys, monkeypatch):
    """Both on this machine; the second is started by the line that the first prints."""
    rendezvous = f"127.0.0.1:{free_port()}"
    saved = load("qwen3_moe")
    alone, together = (ExpertBank(saved.moe, some_experts(saved.moe)) for _ in range(2))
    expected = train_bank(saved, alone, EXAMPLES, CONFIG, seed=0)
    others, told = [], []

    def start(message):
        told.append(message)
        command = shlex.split(message.splitlines()[1])
        assert command.pop(0) == "torchrun"
        others.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    monkeypatch.setattr(launch, "say", start)
    config = CONFIG.model_copy(update={"processes": 1, "machines": 2, "rendezvous": rendezvous})
    steps: list[int] = []
    shared = tmp_path / "job.partial"
    try:
        found = train_in_processes(
            saved, together, EXAMPLES, config, 0, steps.append, dtype="float32", shared=shared
        )
        assert [other.wait(timeout=60) for other in others] == [0]
    finally:
        for other in others:
            other.kill()
    assert told[0].startswith("waiting for machine 1: run there")
    assert len(steps) == len(found.log) == len(expected.log)
    for a, b in zip(expected.log, found.log, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)
    for a, b in zip(alone.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert not shared.exists()


@pytest.mark.slow
def test_two_processes_read_every_objective_as_one_does_and_go_on_from_a_checkpoint(load, tmp_path):
    saved = load("qwen3_moe")
    aims = ["prefer", "retain", "prefer", "continue", "retain", "refuse", "prefer"]
    examples = [
        replace(example, aim=aim, rejected=tuple(range(300 + i, 306 + i)) if aim == "prefer" else ())
        for i, (example, aim) in enumerate(zip(EXAMPLES, aims, strict=True))
    ]
    objectives = {"refuse": 1.0, "retain": 0.5, "retain_kl": 1.0, "prefer": 2.0, "refuse_continued": 1.0}
    config = CONFIG.model_copy(update={"objectives": objectives})
    alone, together, again = (ExpertBank(saved.moe, some_experts(saved.moe)) for _ in range(3))
    expected = train_bank(saved, alone, examples, config, seed=0)
    kept = {"dtype": "float32", "checkpoints": Checkpoints(tmp_path / "checkpoint", "key", every=3)}
    found = train_in_processes(saved, together, examples, config, 0, **kept)
    for a, b in zip(expected.log, found.log, strict=True):
        assert b["losses"] == pytest.approx(a["losses"], abs=1e-4)
    for a, b in zip(alone.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    steps: list[int] = []
    assert train_in_processes(saved, again, examples, config, 0, steps.append, **kept) == found
    assert len(steps) == 4  # three of them told at once, from the checkpoint
    assert all(map(torch.equal, together.parameters(), again.parameters()))


@pytest.mark.slow
def test_the_layers_are_split_over_a_world_of_two(load):
    """Each process holds half of every tensor, and together they are the checkpoint's, buffers included."""
    saved = load("qwen3_moe", tie_word_embeddings=True)
    script = f"""
import json, sys, torch
from pathlib import Path
from torch.distributed.tensor import DTensor
from harness.models.load import ModelRef
from harness.training.distributed import joined, load_sharded
with joined(torch.device("cpu")) as (ranks, mesh):
    loaded = load_sharded(ModelRef("m", Path({str(saved.ref.path)!r})), "float32", torch.device("cpu"), ranks, mesh)
    model = loaded.moe.model
    split = [isinstance(value, DTensor) for value in model.model.layers.parameters()]
    local = sum(value.to_local().numel() for value in model.model.layers.parameters())
    with torch.inference_mode():
        logits = model(torch.arange(20, 52).reshape(2, 16)).logits
    Path(sys.argv[1], f"{{ranks.rank}}.json").write_text(json.dumps(
        {{"world": torch.distributed.get_world_size(), "split": split, "local": local, "logits": logits.tolist()}}))
"""
    folder = saved.ref.path
    (folder / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, str(folder / "script.py"), str(folder)], check=True, capture_output=True)
    with torch.inference_mode():
        expected = saved.moe.model(torch.arange(20, 52).reshape(2, 16)).logits
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    parameters = sum(value.numel() for value in saved.moe.model.model.layers.parameters())
    assert sum(rank["local"] for rank in found) == parameters
    for rank in found:
        assert rank["world"] == 2
        assert all(rank["split"])
        assert rank["local"] < 0.6 * parameters
        torch.testing.assert_close(torch.tensor(rank["logits"]), expected, rtol=1e-5, atol=1e-5)


def test_shares_are_a_partition_and_nobody_is_left_out():
    ranks = [Ranks(rank, 3) for rank in range(3)]
    shares = [rank.share(EXAMPLES[:5]) for rank in ranks]
    assert sorted(EXAMPLES.index(example) for share in shares for example in share) == [0, 1, 2, 3, 4]
    # All run as many forward passes, one of them with nothing to learn.
    shares = [rank.share(EXAMPLES[:2]) for rank in ranks]
    assert shares == [[EXAMPLES[0]], [EXAMPLES[1]], [replace(EXAMPLES[0], answer=())]]
    assert Ranks().share(EXAMPLES) == EXAMPLES


@pytest.mark.slow
def test_an_error_of_a_process_is_told_in_its_own_words(tiny_model, saved_model):
    model = tiny_model("qwen3_moe")
    model.lm_head.weight.fill_(torch.nan)
    loaded = load_model(ModelRef("broken", saved_model(model)), "float32", "cpu")
    bank = ExpertBank(loaded.moe, some_experts(loaded.moe))
    before = bank.state()["layers.1.weights.down_proj"].clone()
    with pytest.raises(
        HarnessError, match=r"the loss of step 1 is nan: lower training.learning_rate"
    ) as error:
        train_in_processes(loaded, bank, EXAMPLES, CONFIG, 0)
    assert error.value.exit_code == 1
    assert torch.equal(bank.state()["layers.1.weights.down_proj"], before)


def test_bad_input_that_a_process_finds_is_bad_input(tmp_path):
    (tmp_path / "error.json").write_text('{"exit_code": 2, "message": "no"}')
    error = error_of(tmp_path, tmp_path / "stderr", 1)
    assert (type(error), str(error)) == (BadInputError, "no")


def test_a_process_that_dies_without_a_word_fails_the_run(tmp_path):
    log = tmp_path / "stderr"
    log.write_text("starting\n[rank1]: SegfaultError: oh\n")
    error = error_of(tmp_path, log, 139)
    assert type(error) is HarnessError
    assert str(error) == ("torchrun ended with exit code 139 while training: [rank1]: SegfaultError: oh")


def test_a_bank_takes_the_state_of_its_like_alone(tiny_model):
    moe = find_moe(tiny_model("qwen3_moe"))
    one, other = ExpertBank(moe, [Expert(1, 0)]), ExpertBank(moe, [Expert(1, 0)])
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.mul_(2)
    other.load_state(one.state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with pytest.raises(BadInputError, match="other experts or settings"):
        other.load_state(ExpertBank(moe, [Expert(2, 0)]).state())
