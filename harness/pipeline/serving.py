"""Letting whichever engine answers behave as a variant."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.base.files import write_json
from harness.checkpoints.proof import model_fingerprint
from harness.engines.witness import Witness, log_probs_of
from harness.interventions.apply import active

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.experts.select import ExpertSelection
    from harness.interventions.apply import Variant
    from harness.pipeline.session import Session


@contextmanager
def serving(
    session: Session, variant: Variant, selection: ExpertSelection | None, delta: ExpertDelta | None
) -> Iterator[None]:
    """Make the run's engine answer as the variant inside the block; afterwards it answers as base again.

    The transformers engine answers with the model in memory. vLLM is started on a checkpoint of the variant, which is
    removed afterwards, and what it serves is compared with the model in memory (`vllm.check_weights`); served.json
    says what was served.

    Raises:
        BadInputError: vLLM serves other weights than the variant's.
    """
    if session.engine_name == "transformers":
        with active(variant, session.loaded.moe, selection, delta):
            yield
        return
    kind = variant.spec.intervention
    masked = selection.by_layer() if kind == "steer" and selection is not None else None
    trained = delta if kind == "train_experts" else None
    folder = session.folder.variant(variant.name)
    checkpoint = None if trained is None else folder / "served"
    if trained is not None and checkpoint is not None:
        from harness.checkpoints.merge import write_merged
        from harness.pipeline.training import check_disk

        shutil.rmtree(checkpoint, ignore_errors=True)
        check_disk(session, folder)
        write_merged(session.plan.ref, trained, checkpoint)

    def witness() -> Witness:
        base = session.witness()
        if trained is None and masked is None:
            return base
        with active(variant, session.loaded.moe, selection, delta):
            return Witness(base.texts, log_probs_of(session.loaded, base.texts), base.log_probs, base.dtype)

    engine = session.vllm
    engine.serve(checkpoint, masked, witness if session.config.vllm.check_weights else None)
    try:
        yield
        if engine.is_running:
            write_json(
                folder / "served.json",
                {
                    "engine": engine.name,
                    "fingerprint": model_fingerprint(checkpoint) if checkpoint else session.model_key,
                    "masked_experts": {
                        str(layer): list(experts) for layer, experts in (masked or {}).items()
                    },
                    "log_probs": asdict(engine.agreement) if engine.agreement else None,
                },
            )
    finally:
        engine.serve(witness=session.witness if session.config.vllm.check_weights else None)
        if checkpoint is not None:
            engine.close()
            shutil.rmtree(checkpoint, ignore_errors=True)
