"""The stages that make a trained variant: the training itself, and the frozen proof."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.base.files import read_json, write_json, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress, say
from harness.checkpoints.proof import frozen_unchanged
from harness.pipeline.answering import contents
from harness.pipeline.conversations import to_examples
from harness.pipeline.held_out import held_out_prompts, looks

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.experts.select import ExpertSelection
    from harness.interventions.apply import Variant
    from harness.models.moe import Expert
    from harness.pipeline.session import Session


def train(
    session: Session, variant: Variant, selection: ExpertSelection, conversations: list[dict[str, Any]]
) -> ExpertDelta:
    """Train a variant's experts; the result is kept as delta.safetensors with delta.json and train.jsonl.

    While it trains, checkpoint.partial holds its state; a run that was killed goes on from there.
    """
    from harness.checkpoints.delta import load_delta

    folder = session.folder.variant(variant.name)
    key = training_key(session, selection, conversations)
    target = folder / "delta.safetensors"
    if not session.folder.is_done(f"train {variant.name}", key, [target, folder / "delta.json"]):
        with session.folder.stage(f"train {variant.name}", key):
            _train(session, variant, selection, conversations, folder, key)
    return load_delta(target)


def training_key(session: Session, selection: ExpertSelection, conversations: list[dict[str, Any]]) -> str:
    """Return the fingerprint of a training: the order of experts and how often it is kept on disk do not matter."""
    looked_at = {}
    if session.config.training.early_stopping.every is not None:
        asked = [held_out_prompts(session, kind) for kind in ("harmful", "benign")]
        prompts = [[task, contents(rows)] for tasks in asked for task, rows in tasks.items()]
        looked_at = {"held_out": fingerprint(prompts), "judge": session.plan.judge.fingerprint}
    return session.key(
        experts=sorted(selection.experts),
        conversations=fingerprint(conversations),
        training=session.config.training.deciding("training"),
        seed=session.config.seed,
        **looked_at,
    )


def _train(
    session: Session,
    variant: Variant,
    selection: ExpertSelection,
    conversations: list[dict[str, Any]],
    folder: Path,
    key: str,
) -> None:
    import torch

    from harness.checkpoints.delta_file import write_delta
    from harness.training.bank import ExpertBank, delta_of
    from harness.training.batches import count_steps
    from harness.training.launch import train_in_processes
    from harness.training.loop import train_bank
    from harness.training.lora import lora_of
    from harness.training.resume import Checkpoints

    loaded, config = session.loaded, session.config
    torch.manual_seed(config.seed)
    bank = ExpertBank(loaded.moe, selection.experts, lora=lora_of(config.training))
    examples = to_examples(session, conversations)
    steps = count_steps(len(examples), config.training)
    evaluate = looks(session, bank) if config.training.early_stopping.every is not None else None
    checkpoints = Checkpoints(folder / "checkpoint.partial", key, config.training.checkpoint_every)
    with progress(f"train {variant.name}", steps, "steps") as advance:
        if config.training.world_size == 1:
            result = train_bank(
                loaded,
                bank,
                examples,
                config.training,
                config.seed,
                advance,
                checkpoints=checkpoints,
                evaluate=evaluate,
            )
        else:
            result = train_in_processes(
                loaded,
                bank,
                examples,
                config.training,
                config.seed,
                advance,
                dtype=config.dtype,
                device=session.device_type,
                shared=folder / "job.partial",
                checkpoints=checkpoints,
            )
    if result.without_gradient:
        say(
            f"train {variant.name}: {len(result.without_gradient)} selected experts were never routed to in training"
        )
    delta = delta_of(bank, session.model_key, loaded.checkpoint_dtype)
    write_jsonl(folder / "train.jsonl", result.log)
    write_delta(
        folder,
        delta,
        loaded.moe,
        session.plan.ref,
        {
            "without_gradient": [list(expert) for expert in result.without_gradient],
            "training": config.training.model_dump(mode="json"),
            "examples": dict(Counter(example.aim for example in examples)),
            "steps": len(result.log),
            "early_stopping": _early_stopping(session, result.log) if evaluate else None,
            "seed": config.seed,
        },
    )
    checkpoints.remove()


def _early_stopping(session: Session, log: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what delta.json says of the state that was kept."""
    from harness.training.stopping import best_step

    best = best_step(log)
    assert best is not None
    return {
        "kept_step": best,
        "held_out": log[best - 1]["held_out"],
        "prompts": {
            task: len(prompts)
            for kind in ("harmful", "benign")
            for task, prompts in held_out_prompts(session, kind).items()
        },
    }


def prove_frozen(session: Session, variant: Variant, delta: ExpertDelta, train_key: str) -> bool:
    """Write the merged checkpoint, read it back and compare it with the base, tensor by tensor.

    Kept as proof.json. The checkpoint stays as VARIANT/model with `save_model`, and is removed otherwise.
    """
    folder = session.folder.variant(variant.name)
    proof, model = folder / "proof.json", folder / "model"
    key = fingerprint([train_key, session.config.save_model])
    stage = f"prove {variant.name}"
    files = [proof, model / "config.json"] if session.config.save_model else [proof]
    if not session.folder.is_done(stage, key, files):
        with session.folder.stage(stage, key):
            _prove(session, delta.selected(), delta, proof, model)
    return bool(read_json(proof)["frozen_unchanged"])


def _prove(session: Session, trained: list[Expert], delta: ExpertDelta, proof: Path, model: Path) -> None:
    from harness.checkpoints.merge import write_merged

    partial = model.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    check_disk(session, partial.parent)
    write_merged(session.plan.ref, delta, partial)
    result = frozen_unchanged(session.plan.ref.path, partial, set(trained))
    if session.config.save_model:
        shutil.rmtree(model, ignore_errors=True)
        partial.rename(model)
    else:
        shutil.rmtree(partial)
    write_json(
        proof,
        {
            "frozen_unchanged": result.unchanged,
            "violations": list(result.violations),
            "tensors_compared": result.compared,
            "trained_experts": [list(expert) for expert in sorted(trained)],
            "changed_experts": [list(expert) for expert in result.changed_experts],
            "unmoved_experts": [list(expert) for expert in result.unmoved_experts],
        },
    )


def check_disk(session: Session, place: Path) -> None:
    """Make sure that a merged checkpoint has room in a folder.

    Raises:
        HarnessError: it has not.
    """
    needed = sum(file.stat().st_size for file in session.plan.ref.path.glob("*.safetensors"))
    free = shutil.disk_usage(place).free
    if free < 1.05 * needed:
        raise HarnessError(
            f"the merged checkpoint takes {needed / 1e9:.1f} GB, {place} has {free / 1e9:.1f} GB free: "
            "make room or choose another --output"
        )
