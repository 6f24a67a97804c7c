"""The stages that make a trained variant: the training itself, and the frozen proof."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.base.files import read_json, write_json, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress, say
from harness.checkpoints.proof import frozen_unchanged
from harness.pipeline.answering import contents
from harness.pipeline.conversations import to_examples
from harness.pipeline.held_out import held_out_prompts, looks
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session

Rows = list[dict[str, Any]]


def _train_key(session: Session, made: Prepared, conversations: Rows) -> str:
    """Return the fingerprint of a training: the order of experts and how often it is kept on disk do not matter."""
    looked_at = {}
    if session.config.training.early_stopping.every is not None:
        asked = [held_out_prompts(session, kind) for kind in ("harmful", "benign")]
        prompts = [[task, contents(rows)] for tasks in asked for task, rows in tasks.items()]
        looked_at = {"held_out": fingerprint(prompts), "judge": session.plan.judge.fingerprint}
    return session.key(
        made=made.fingerprint,
        conversations=fingerprint(conversations),
        training=session.config.training.deciding("training"),
        seed=session.config.seed,
        **looked_at,
    )


@stage(
    "train {made.name}",
    writes=(
        "variants/{made.name}/delta.safetensors",
        "variants/{made.name}/delta.json",
        "variants/{made.name}/train.jsonl",
    ),
    key=_train_key,
    keeps="variants/{made.name}/checkpoint.partial",
)
def train(session: Session, made: Prepared, conversations: Rows) -> None:
    """Train a variant's experts; the result is kept as delta.safetensors with delta.json and train.jsonl.

    While it trains, checkpoint.partial holds its state; a run that was killed goes on from there.
    """
    import torch

    from harness.checkpoints.delta_file import write_delta
    from harness.training.bank import ExpertBank, delta_of
    from harness.training.batches import count_steps
    from harness.training.launch import train_in_processes
    from harness.training.loop import train_bank
    from harness.training.lora import lora_of
    from harness.training.resume import Checkpoints

    if made.selection is None:
        raise HarnessError(f"variant '{made.name}' is to be trained and acts on no experts")
    loaded, config = session.loaded, session.config
    folder, key = session.folder.variant(made.name), _train_key(session, made, conversations)
    torch.manual_seed(config.seed)
    bank = ExpertBank(loaded.moe, made.selection.experts, lora=lora_of(config.training))
    examples = to_examples(session, conversations)
    steps = count_steps(len(examples), config.training)
    evaluate = looks(session, bank) if config.training.early_stopping.every is not None else None
    checkpoints = Checkpoints(folder / "checkpoint.partial", key, config.training.checkpoint_every)
    with progress(f"train {made.name}", steps, "steps") as advance:
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
            f"train {made.name}: {len(result.without_gradient)} selected experts were never routed to in training"
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


def trained(session: Session, made: Prepared, conversations: Rows) -> Prepared:
    """Return the variant with its trained experts, which `train` has made."""
    from harness.checkpoints.delta import load_delta

    path = session.folder.variant(made.name) / "delta.safetensors"
    # The values too: trained again on a GPU, they may differ in the last bit, and the answers with them.
    done = fingerprint([_train_key(session, made, conversations), session.folder.hash_of(path)])
    return replace(made, delta=load_delta(path), training=done)


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


def prove_frozen(session: Session, made: Prepared) -> bool:
    """Write the merged checkpoint, read it back and compare it with the base, tensor by tensor.

    Kept as proof.json. The checkpoint stays as VARIANT/model with `save_model`, and is removed otherwise.
    """
    _prove(session, made)
    return bool(read_json(session.folder.variant(made.name) / "proof.json")["frozen_unchanged"])


def _proof_key(session: Session, made: Prepared) -> str:
    return fingerprint([made.fingerprint, session.config.save_model])


@stage(
    "prove {made.name}",
    writes=("variants/{made.name}/proof.json", "variants/{made.name}/model/"),
    key=_proof_key,
)
def _prove(session: Session, made: Prepared) -> None:
    from harness.checkpoints.merge import write_merged

    delta, folder = made.delta, session.folder.variant(made.name)
    assert delta is not None  # only what was trained is proved
    trained_experts, model, partial = delta.selected(), folder / "model", folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    write_merged(session.plan.ref, delta, partial)
    result = frozen_unchanged(session.plan.ref.path, partial, set(trained_experts))
    if session.config.save_model:
        shutil.rmtree(model, ignore_errors=True)
        partial.rename(model)
    else:
        shutil.rmtree(partial)
    write_json(
        folder / "proof.json",
        {
            "frozen_unchanged": result.unchanged,
            "violations": list(result.violations),
            "tensors_compared": result.compared,
            "trained_experts": [list(expert) for expert in sorted(trained_experts)],
            "changed_experts": [list(expert) for expert in result.changed_experts],
            "unmoved_experts": [list(expert) for expert in result.unmoved_experts],
        },
    )
