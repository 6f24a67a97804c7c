"""The stage that trains an adapter of the whole model, with the data and the budget of the experts' training."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from harness.base.files import write_json, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress
from harness.checkpoints.adapter import TENSORS
from harness.pipeline.conversations import to_examples
from harness.pipeline.train import Rows, training_key
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.models.moe import MoEModel
    from harness.pipeline.session import Session

_VARIANT = PATHS.variant("{made.name}")


@stage(
    "train {made.name}",
    writes=(f"{_VARIANT.adapter}/", str(_VARIANT.adapter_card), str(_VARIANT.training), str(_VARIANT.proof)),
    key=training_key,
    keeps=str(_VARIANT.checkpoint),
)
def train_adapter(session: Session, made: Prepared, conversations: Rows) -> None:
    """Train an adapter; kept as the folder adapter, with adapter.json, train.jsonl and the frozen proof.

    The proof says what was to be frozen: every weight of base, as it is in memory before and after.
    """
    import torch

    from harness.training.adapter_bank import adapter_bank
    from harness.training.batches import count_steps
    from harness.training.loop import train_bank
    from harness.training.resume import Checkpoints

    loaded, config, settings = session.loaded, session.config, session.config.training
    files, key = session.folder.layout.variant(made.name), training_key(session, made, conversations)
    before, lora = _digests(loaded.moe), made.intervention.adapter
    assert lora is not None  # that is how it got here
    examples = to_examples(session, conversations)
    torch.manual_seed(config.seed)
    checkpoints = Checkpoints(files.checkpoint, key, settings.checkpoint_every)
    with (
        progress(f"train {made.name}", count_steps(len(examples), settings), "steps") as advance,
        adapter_bank(loaded.moe, lora.rank, lora.alpha) as bank,
    ):
        job = (loaded, bank, examples, settings, config.seed, advance)
        result = train_bank(*job, checkpoints=checkpoints, on_row=partial(session.watch.step, made.name))
        bank.save(files.adapter, session.plan.ref.name)
        size = bank.size
    after = _digests(loaded.moe)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    write_jsonl(files.training, result.log)
    write_json(
        files.adapter_card,
        {
            "parameters": size,
            "training": settings.model_dump(mode="json"),
            "examples": dict(Counter(example.aim for example in examples)),
            "steps": len(result.log),
            "seed": config.seed,
        },
    )
    write_json(
        files.proof,
        {
            "frozen_unchanged": not changed,
            "violations": [f"{name}: differs" for name in changed],
            "tensors_compared": len(before),
        },
    )


def trained_adapter(session: Session, made: Prepared, conversations: Rows) -> Prepared:
    """Return the variant with its adapter, which `train_adapter` has made."""
    folder = session.folder.layout.variant(made.name).adapter
    done = fingerprint([training_key(session, made, conversations), session.folder.hash_of(folder / TENSORS)])
    return replace(made, trained_in=folder, training=done)


def _digests(moe: MoEModel) -> dict[str, str]:
    """Return sha256 over each weight of a model in memory, by its name."""
    import torch

    return {
        name: hashlib.sha256(
            value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        ).hexdigest()
        for name, value in [*moe.model.named_parameters(), *moe.model.named_buffers()]
    }
