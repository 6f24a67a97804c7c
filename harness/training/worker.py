"""One of several processes that train a bank together; torchrun starts it, `launch` writes its job.

    torchrun --nproc-per-node N -m harness.training.worker JOB

JOB is a folder with job.json and bank.safetensors. The first process leaves trained.safetensors and result.json there,
and writes a line per step; one that fails leaves error.json.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from harness.base.errors import HarnessError
from harness.base.files import read_json, write_json

STEP = "step"
"""The line that reports an optimizer step."""


def main(folder: Path) -> int:
    """Take part in a job and return the exit code."""
    try:
        _train(folder, read_json(folder / "job.json"))
    except HarnessError as error:
        write_json(folder / "error.json", {"exit_code": error.exit_code, "message": str(error)})
        return error.exit_code
    return 0


def _train(folder: Path, job: dict[str, Any]) -> None:
    import torch

    from harness.config import TrainingConfig
    from harness.models.load import ModelRef, quiet_transformers
    from harness.models.moe import Expert
    from harness.training.bank import ExpertBank
    from harness.training.distributed import joined, load_sharded
    from harness.training.examples import Example
    from harness.training.loop import train_bank
    from harness.training.lora import lora_of
    from harness.training.resume import Checkpoints

    quiet_transformers()
    device = torch.device(job["device"])
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    config = TrainingConfig.model_validate(job["config"])
    examples = [
        Example(tuple(row["prompt"]), tuple(row["answer"]), row["aim"], tuple(row["rejected"]))
        for row in job["examples"]
    ]
    with joined(device) as (ranks, mesh):
        ref = ModelRef(
            job["model"], Path(job["path"]), job["trust_remote_code"], job["trust_remote_tokenizer"]
        )
        loaded = load_sharded(ref, job["dtype"], device, ranks, mesh)
        experts = [Expert(*pair) for pair in job["experts"]]
        bank = ExpertBank(loaded.moe, experts, lora=lora_of(config))
        bank.load(folder / "bank.safetensors")

        def on_step(steps: int) -> None:
            if ranks.rank == 0:
                print(*[STEP] * steps, sep="\n", flush=True)

        kept = job["checkpoints"]
        checkpoints = Checkpoints(Path(kept["path"]), kept["key"], kept["every"]) if kept else None
        result = train_bank(
            loaded, bank, examples, config, job["seed"], on_step, ranks=ranks, checkpoints=checkpoints
        )
        if ranks.rank == 0:
            bank.save(folder / "trained.safetensors")
            unrouted = [list(expert) for expert in result.without_gradient]
            write_json(folder / "result.json", {"log": result.log, "without_gradient": unrouted})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
