"""The stages that make a trained variant: its examples, the training itself, and the frozen proof."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.refusals import refusals_for
from harness.errors import HarnessError
from harness.judges.base import judge_all
from harness.models.auto import refuse_quantized
from harness.models.checkpoint import frozen_unchanged
from harness.progress import progress, say
from harness.run.answering import own_answers
from harness.store.files import read_json, write_json, write_jsonl
from harness.store.fingerprint import fingerprint

if TYPE_CHECKING:
    from harness.experts.select import ExpertSelection
    from harness.interventions.apply import Variant
    from harness.models.moe import Expert
    from harness.run.session import Session
    from harness.training.delta import ExpertDelta
    from harness.training.examples import Example


def training_conversations(session: Session) -> list[dict[str, Any]]:
    """Put the training examples together: refusals for harmful prompts, own answers for benign ones.

    Benign examples are shared evenly between the benign tasks (ordinary prompts and twins), at most
    `training.retain_per_refusal` for each refusal. A benign prompt that the base model itself refuses is left
    out, since holding on to that answer would teach false refusal.
    """
    path = session.folder.path / "training" / "examples.jsonl"
    refuse = refusals(session)
    retained = {task: _complied(session, task, rows) for task, rows in own_answers(session).items()}
    quota = round(session.config.training.retain_per_refusal * len(refuse))
    shares = _even_shares(quota, {task: len(rows) for task, rows in retained.items()})
    rows = refuse + [row for task, share in shares.items() for row in retained[task][:share]]
    write_jsonl(path, rows)
    return rows


def refusals(session: Session) -> list[dict[str, Any]]:
    """Return the harmful train prompts, each with the refusal that it is to get."""
    return [
        {
            "task": task,
            "id": prompt.id,
            "prompt": prompt.text,
            "answer": refusal,
            "finished": True,
            "aim": "refuse",
        }
        for task, prompts in session.plan.prompts("train", "harmful").items()
        for prompt, refusal in zip(prompts, refusals_for(prompts, session.config.seed), strict=True)
    ]


def to_examples(session: Session, conversations: Sequence[Mapping[str, Any]]) -> list[Example]:
    """Tokenise conversations, the refusals first."""
    from harness.training.examples import make_examples

    return [
        example
        for aim in ("refuse", "retain")
        for example in make_examples(
            session.engine.chat,
            [row["prompt"] for row in conversations if row["aim"] == aim],
            [row["answer"] for row in conversations if row["aim"] == aim],
            [row["finished"] for row in conversations if row["aim"] == aim],
            session.loaded.end_of_turn,
            aim,
        )
    ]


def _complied(session: Session, task: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    verdicts = judge_all(session.plan.judge, rows)
    return [
        {
            "task": task,
            "id": row["id"],
            "prompt": row["prompt"],
            "answer": row["response"],
            "finished": row["finish_reason"] == "stop",
            "aim": "retain",
        }
        for row, verdict in zip(rows, verdicts, strict=True)
        if verdict.label == "compliance"
    ]


def _even_shares(quota: int, available: dict[str, int]) -> dict[str, int]:
    """Share a quota out evenly; what one task cannot fill goes to the others."""
    shares: dict[str, int] = {}
    for place, (task, rows) in enumerate(sorted(available.items(), key=lambda item: (item[1], item[0]))):
        shares[task] = min(rows, (quota - sum(shares.values())) // (len(available) - place))
    return {task: shares[task] for task in available}


def train(
    session: Session, variant: Variant, selection: ExpertSelection, conversations: list[dict[str, Any]]
) -> ExpertDelta:
    """Train a variant's experts; the result is kept as delta.safetensors with delta.json and train.jsonl."""
    from harness.training.delta import load_delta

    folder = session.folder.variant(variant.name)
    key = training_key(session, selection, conversations)
    target = folder / "delta.safetensors"
    if not session.folder.is_done(f"train {variant.name}", key, [target, folder / "delta.json"]):
        with session.folder.stage(f"train {variant.name}", key):
            _train(session, variant, selection, conversations, folder)
    return load_delta(target)


def training_key(session: Session, selection: ExpertSelection, conversations: list[dict[str, Any]]) -> str:
    """Return the fingerprint of a training: the experts' order does not matter, everything else does."""
    return session.key(
        experts=sorted(selection.experts),
        conversations=fingerprint(conversations),
        training=session.config.training.model_dump(),
        seed=session.config.seed,
    )


def _train(
    session: Session,
    variant: Variant,
    selection: ExpertSelection,
    conversations: list[dict[str, Any]],
    folder: Path,
) -> None:
    import torch

    from harness.training.bank import ExpertBank
    from harness.training.batches import count_steps
    from harness.training.delta import delta_of
    from harness.training.delta_file import write_delta
    from harness.training.launch import train_in_processes
    from harness.training.loop import train_bank
    from harness.training.lora import lora_of

    refuse_quantized(session.plan.ref.path)
    loaded, config = session.loaded, session.config
    torch.manual_seed(config.seed)
    bank = ExpertBank(loaded.moe, selection.experts, lora=lora_of(config.training))
    examples = to_examples(session, conversations)
    steps = count_steps(len(examples), config.training)
    with progress(f"train {variant.name}", steps, "steps") as advance:
        if config.training.processes == 1:
            result = train_bank(loaded, bank, examples, config.training, config.seed, advance)
        else:
            result = train_in_processes(
                loaded,
                bank,
                examples,
                config.training,
                config.seed,
                advance,
                dtype=config.dtype,
                trust_remote_code=config.trust_remote_code,
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
            "examples": {
                aim: sum(example.aim == aim for example in examples) for aim in ("refuse", "retain")
            },
            "steps": len(result.log),
            "seed": config.seed,
        },
        config.trust_remote_code,
    )


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
    from harness.training.merge import write_merged

    partial = model.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _check_disk(session, partial.parent)
    write_merged(session.plan.ref, delta, partial, session.config.trust_remote_code)
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


def _check_disk(session: Session, place: Path) -> None:
    needed = sum(file.stat().st_size for file in session.plan.ref.path.glob("*.safetensors"))
    free = shutil.disk_usage(place).free
    if free < 1.05 * needed:
        raise HarnessError(
            f"the merged checkpoint takes {needed / 1e9:.1f} GB, {place} has {free / 1e9:.1f} GB free: "
            "make room or choose another --output"
        )
