"""Letting whichever engine answers behave as a variant."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.base.errors import BadInputError
from harness.base.files import write_json
from harness.checkpoints.proof import model_fingerprint
from harness.engines.witness import Witness, log_probs_of
from harness.interventions.base import Prepared, Served

if TYPE_CHECKING:
    from harness.interventions.base import Variant
    from harness.pipeline.session import Session


def refuse_unserved(variants: Iterable[Variant], engine: str) -> None:
    """Refuse variants that an engine which loads weights by itself cannot serve, before anything is made.

    Raises:
        BadInputError: names the variant, its kind and the engine.
    """
    for variant in variants:
        if variant.spec.served(Prepared(variant)) is None:
            raise BadInputError(
                f"engine {engine} cannot serve variant '{variant.name}' (intervention "
                f"'{variant.spec.intervention}'): choose --engine transformers, or leave the variant out"
            )


@contextmanager
def serving(session: Session, made: Prepared) -> Iterator[None]:
    """Make the run's engine answer as the variant inside the block; afterwards it answers as base again.

    The transformers engine answers with the model in memory. vLLM is started on a checkpoint of the variant, which is
    removed afterwards, and what it serves is compared with the model in memory (`vllm.check_weights`); served.json
    says what was served.

    Raises:
        BadInputError: vLLM serves other weights than the variant's, or cannot serve it.
    """
    if session.engine_name == "transformers":
        with made.intervention.in_memory(session.loaded.moe, made):
            yield
        return
    refuse_unserved([made.variant], session.engine_name)
    served = made.intervention.served(made)
    assert served is not None  # refuse_unserved
    folder = session.folder.variant(made.name)
    checkpoint = None if served.delta is None else folder / "served"
    if served.delta is not None and checkpoint is not None:
        from harness.checkpoints.merge import write_merged
        from harness.pipeline.training import check_disk

        shutil.rmtree(checkpoint, ignore_errors=True)
        check_disk(session, folder)
        write_merged(session.plan.ref, served.delta, checkpoint, session.config.trust_remote_code)

    def witness() -> Witness:
        base = session.witness()
        if served == Served():
            return base
        with made.intervention.in_memory(session.loaded.moe, made):
            return Witness(base.texts, log_probs_of(session.loaded, base.texts), base.log_probs, base.dtype)

    engine = session.vllm
    engine.serve(checkpoint, served.masked, witness if session.config.vllm.check_weights else None)
    try:
        yield
        if engine.is_running:
            write_json(
                folder / "served.json",
                {
                    "engine": engine.name,
                    "fingerprint": model_fingerprint(checkpoint) if checkpoint else session.model_key,
                    "masked_experts": {str(layer): list(experts) for layer, experts in served.masked.items()},
                    "log_probs": asdict(engine.agreement) if engine.agreement else None,
                },
            )
    finally:
        engine.serve(witness=session.witness if session.config.vllm.check_weights else None)
        if checkpoint is not None:
            engine.close()
            shutil.rmtree(checkpoint, ignore_errors=True)
