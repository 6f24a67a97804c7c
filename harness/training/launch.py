"""Training in several processes, on one machine or on several: the same call as in one, through torchrun."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from harness.base.errors import BadInputError, HarnessError
from harness.base.files import read_json, write_json
from harness.base.progress import say
from harness.models.moe import Expert
from harness.training.bank import ExpertBank
from harness.training.examples import Example
from harness.training.loop import TrainingResult
from harness.training.worker import STEP

if TYPE_CHECKING:
    from harness.config import TrainingConfig
    from harness.models.load import LoadedModel
    from harness.training.resume import Checkpoints


def train_in_processes(
    loaded: LoadedModel,
    bank: ExpertBank,
    examples: Sequence[Example],
    config: TrainingConfig,
    seed: int,
    on_step: Callable[[int], None] = lambda steps: None,
    *,
    dtype: str = "auto",
    device: str | None = None,
    checkpoints: Checkpoints | None = None,
    shared: Path | None = None,
) -> TrainingResult:
    """Train a bank in place, in `config.processes` processes per machine that share the frozen weights.

    They load the model anew from its checkpoint. On a GPU the model of this process waits in host memory meanwhile.

    Args:
        loaded: the model that the bank was made for.
        bank: the experts to train.
        examples: what to learn.
        config: as for `train_bank`; `batch_size` counts the examples of all processes.
        seed: fixes the order of the examples.
        on_step: called with the optimizer steps that are done.
        dtype: of the model, as `load_model` takes it.
        device: kind of device that the processes use; by default that of this process's model.
        checkpoints: where the training is kept while it runs, and resumes from.
        shared: a folder that all machines see, where there are several; removed afterwards.

    Raises:
        BadInputError: more processes than GPUs, or what `train_bank` refuses.
        HarnessError: the training failed.
    """
    kind = device or loaded.device.type
    if kind == "cuda" and config.processes > torch.cuda.device_count():
        raise BadInputError(
            f"training.processes = {config.processes}: this machine has {torch.cuda.device_count()} GPUs, "
            "expected a process for each at most"
        )
    model: Any = loaded.moe.model
    with _job_folder(config, shared) as folder:
        write_json(
            folder / "job.json",
            {
                "model": loaded.ref.name,
                "path": str(loaded.ref.path.resolve()),
                "dtype": dtype,
                "device": kind,
                "trust_remote_code": loaded.ref.trust_remote_code,
                "trust_remote_tokenizer": loaded.ref.trust_remote_tokenizer,
                "experts": [[index, e] for index, layer in bank.layers.items() for e in layer.experts],
                "config": config.model_dump(mode="json"),
                "seed": seed,
                "examples": [asdict(example) for example in examples],
                "checkpoints": checkpoints.settings() if checkpoints else None,
            },
        )
        bank.save(folder / "bank.safetensors")
        # The GPU is left to the processes meanwhile.
        model.to("cpu")
        torch.cuda.empty_cache()
        try:
            _run(folder, config, on_step)
        finally:
            model.to(loaded.device)
        bank.load(folder / "trained.safetensors")
        result = read_json(folder / "result.json")
    return TrainingResult(result["log"], [Expert(*pair) for pair in result["without_gradient"]])


@contextmanager
def _job_folder(config: TrainingConfig, shared: Path | None) -> Iterator[Path]:
    """Yield a folder for the files that processes hand each other."""
    if config.machines == 1:
        with TemporaryDirectory(prefix="harness-training-") as name:
            yield Path(name)
        return
    if shared is None:
        raise BadInputError("several machines train together: expected a folder that all of them see")
    shutil.rmtree(shared, ignore_errors=True)
    shared.mkdir(parents=True)
    try:
        yield shared.absolute()
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def _torchrun(folder: Path, config: TrainingConfig, machine: int = 0) -> list[str]:
    """Return torchrun's arguments on one of the machines; the first has the process that writes results."""
    together = ["--standalone"]
    if config.machines > 1:
        host, _, port = str(config.rendezvous).partition(":")
        together = ["--nnodes", str(config.machines), "--node-rank", str(machine)]
        together += ["--master-addr", host, "--master-port", port]
    processes = ["--nproc-per-node", str(config.processes)]
    return [*together, *processes, "-m", "harness.training.worker", str(folder)]


def _run(folder: Path, config: TrainingConfig, on_step: Callable[[int], None]) -> None:
    for machine in range(1, config.machines):
        arguments = shlex.join(_torchrun(folder, config, machine))
        say(f"waiting for machine {machine}: run there\n  torchrun {arguments}")
    command = [sys.executable, "-m", "torch.distributed.run", *_torchrun(folder, config)]
    log = folder / "stderr"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as running,
    ):
        assert running.stdout is not None
        try:
            for line in running.stdout:
                if line.rstrip("\n") == STEP:
                    on_step(1)
        except BaseException:
            running.terminate()
            raise
    if running.returncode:
        raise error_of(folder, log, running.returncode)


def error_of(folder: Path, log: Path, returncode: int) -> HarnessError:
    """Return the error that a process reported, or what torchrun printed."""
    if (folder / "error.json").is_file():
        reported = read_json(folder / "error.json")
        kind = BadInputError if reported["exit_code"] == BadInputError.exit_code else HarnessError
        return kind(reported["message"])
    lines = log.read_text(encoding="utf-8").splitlines()
    reason = next((line.strip() for line in lines if "Error" in line), "it printed nothing")
    return HarnessError(f"torchrun ended with exit code {returncode} while training: {reason}")
