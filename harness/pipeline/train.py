"""The stages that make a trained variant: the training itself, and the frozen proof."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from harness.base.errors import HarnessError
from harness.base.files import move_folder, write_json, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.base.progress import progress, say
from harness.checkpoints.proof import frozen_unchanged
from harness.pipeline.conversations import to_examples
from harness.pipeline.held_out import held_out_prompts, looks
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session

Rows = list[dict[str, Any]]
_VARIANT = PATHS.variant("{made.name}")


def training_key(session: Session, made: Prepared, conversations: Rows) -> str:
    """Return the fingerprint of a training, of experts or of an adapter.

    The order of experts and the interval of checkpoints do not matter.
    """
    held_out = {}
    if session.config.training.early_stopping.every is not None:
        prompts = [[task, [[p.id, p.text] for p in ps]] for task, ps in held_out_prompts(session).items()]
        held_out = {"held_out": fingerprint(prompts), "judge": session.plan.judge.fingerprint}
    # What the template writes before an answer to learn; most write nothing.
    lead = session.plan.chat.turn.lead
    return session.key(
        made=made.fingerprint,
        **({"lead": lead} if lead else {}),
        conversations=fingerprint(conversations),
        training=session.config.training.deciding("training"),
        seed=session.config.seed,
        **held_out,
    )


@stage(
    "train {made.name}",
    writes=(str(_VARIANT.delta), str(_VARIANT.delta_card), str(_VARIANT.training)),
    key=training_key,
    keeps=str(_VARIANT.checkpoint),
)
def train(session: Session, made: Prepared, conversations: Rows) -> None:
    """Train a variant's experts; the result is kept as delta.safetensors with delta.json and train.jsonl.

    While it trains, checkpoint.partial holds its state; a run that was killed resumes from there.
    """
    import torch

    from harness.checkpoints.delta_file import write_delta
    from harness.training.bank import ExpertBank, delta_of
    from harness.training.batches import count_steps
    from harness.training.launch import train_in_processes
    from harness.training.loop import train_bank
    from harness.training.lora import lora_of
    from harness.training.resume import Checkpoints
    from harness.training.stopping import best_step

    if made.selection is None:
        raise HarnessError(f"variant '{made.name}' is to be trained and acts on no experts")
    loaded, config, settings = session.loaded, session.config, session.config.training
    files, key = session.folder.layout.variant(made.name), training_key(session, made, conversations)
    # It tells of the experts that these replace.
    files.carry.unlink(missing_ok=True)
    files.carry_answers.unlink(missing_ok=True)
    torch.manual_seed(config.seed)
    bank = ExpertBank(loaded.moe, made.selection.experts, lora=lora_of(settings))
    examples = to_examples(session, conversations)
    evaluate = looks(session, bank) if settings.early_stopping.every is not None else None
    checkpoints = Checkpoints(files.checkpoint, key, settings.checkpoint_every)
    on_row = partial(session.watch.step, made.name)
    with progress(f"train {made.name}", count_steps(len(examples), settings), "steps") as advance:
        job = (loaded, bank, examples, settings, config.seed, advance)
        if settings.world_size == 1:
            result = train_bank(*job, checkpoints=checkpoints, evaluate=evaluate, on_row=on_row)
        else:
            device = session.device_type
            result = train_in_processes(
                *job, dtype=config.dtype, device=device, shared=files.job, checkpoints=checkpoints
            )
            for row in result.log:
                on_row(row)
    unrouted = [list(expert) for expert in result.without_gradient]
    if unrouted:
        say(f"train {made.name}: {len(unrouted)} selected experts were never routed to in training")
    stopping = None
    if evaluate is not None:
        best = best_step(result.log)
        assert best is not None  # the last step is always looked at
        asked = {task: len(prompts) for task, prompts in held_out_prompts(session).items()}
        stopping = {"kept_step": best, "held_out": result.log[best - 1]["held_out"], "prompts": asked}
    write_jsonl(files.training, result.log)
    write_delta(
        files.folder,
        delta_of(bank, session.model.fingerprint, loaded.checkpoint_dtype),
        loaded.moe,
        session.plan.ref,
        {
            "without_gradient": unrouted,
            "training": settings.model_dump(mode="json"),
            "examples": dict(Counter(example.aim for example in examples)),
            "steps": len(result.log),
            "early_stopping": stopping,
            "seed": config.seed,
        },
    )


def trained(session: Session, made: Prepared, conversations: Rows) -> Prepared:
    """Return the variant with its trained experts, which `train` has made."""
    from harness.checkpoints.delta import load_delta

    path = session.folder.layout.variant(made.name).delta
    # The values too: trained again on a GPU, they may differ in the last bit, and the answers with them.
    done = fingerprint([training_key(session, made, conversations), session.folder.hash_of(path)])
    return replace(made, delta=load_delta(path), training=done)


def _proof_key(session: Session, made: Prepared) -> str:
    return fingerprint([made.fingerprint, session.config.save_model])


@stage("prove {made.name}", writes=(str(_VARIANT.proof), f"{_VARIANT.model}/"), key=_proof_key)
def prove_frozen(session: Session, made: Prepared) -> None:
    """Write the merged checkpoint, read it back and compare it with the base, tensor by tensor.

    Kept as proof.json. The checkpoint stays as VARIANT/model with `save_model`, and is removed otherwise.
    """
    from harness.base.schema import read_json_as
    from harness.checkpoints.delta_file import CARD, DeltaCard
    from harness.checkpoints.merge import write_merged
    from harness.checkpoints.model_card import write_model_card

    delta, files = made.delta, session.folder.layout.variant(made.name)
    assert delta is not None  # only what was trained is proved
    trained_experts, partial = delta.selected(), files.model.with_name(f"{files.model.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    merged = write_merged(session.plan.ref, delta, partial)
    result = frozen_unchanged(session.plan.ref.path, partial, set(trained_experts))
    if session.config.save_model:
        found = "equal the base's, byte for byte" if result.unchanged else "do not all equal the base's"
        write_model_card(
            partial,
            session.plan.ref.path,
            read_json_as(files.folder / CARD, DeltaCard),
            f"{merged.proof} Read back from disk, {result.compared} tensors were compared with the base: those of all "
            f"other experts and layers {found}.",
            merged.left_out,
            f"{session.plan.ref.name} with {made.name}",
        )
        shutil.rmtree(files.model, ignore_errors=True)
        move_folder(partial, files.model)
    else:
        shutil.rmtree(partial)
    write_json(
        files.proof,
        {
            "frozen_unchanged": result.unchanged,
            "violations": list(result.violations),
            "tensors_compared": result.compared,
            "trained_experts": [list(expert) for expert in sorted(trained_experts)],
            "changed_experts": [list(expert) for expert in result.changed_experts],
            "unmoved_experts": [list(expert) for expert in result.unmoved_experts],
        },
    )
