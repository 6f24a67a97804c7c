"""A variant of a finished run, answering again: as it did in the run, from what the run folder keeps of it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.checkpoints.proof import model_fingerprint
from harness.config import make_config
from harness.engines.in_memory import ModelInMemory
from harness.engines.transformers import engine_in_memory
from harness.experts.select import ExpertSelection
from harness.interventions.base import INTERVENTIONS, Intervention, Prepared, Variant
from harness.models.clock import clock_at
from harness.models.load import outline_model, pick_device, resolve_model
from harness.models.moe import Expert

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.engines.base import Engine
    from harness.runs.run import Run


@contextmanager
def answering_again(run: Run, name: str) -> Iterator[tuple[Engine, Prepared, RunConfig]]:
    """Load the run's model and let it answer as one of the run's variants inside the block.

    Raises:
        BadInputError: the model is another one now, or the run keeps too little of the variant.
    """
    config, content = make_config({}, kept=run.record.config), run.variants[name]
    ref = resolve_model(config.model, config.trust_remote_code, config.trust_remote_tokenizer)
    if run.model.fingerprint and model_fingerprint(ref.path) != run.model.fingerprint:
        raise BadInputError(
            f"{run.path}: the weights of {run.model.name} have changed since the run was made"
        )
    spec = _specification(run, content)
    made = _prepared(run, Variant(name, spec, content.get("draw") or 0))
    spec.check(ref, outline_model(ref, may_be_dense=True))
    if spec.is_other_model:
        ref = spec.other_model(ref)
    model = ModelInMemory(
        ref, outline_model(ref, may_be_dense=True), config.dtype, pick_device(config.device).type
    )
    engine = engine_in_memory(config, model.loaded)
    with (
        clock_at(datetime.datetime.fromisoformat(run.record.clock or datetime.datetime.now().isoformat())),
        engine.serving(made, scratch=run.layout.variant(name).folder),
    ):
        yield engine, made, config


def _specification(run: Run, content: dict[str, Any]) -> Intervention:
    """Return a variant's specification; run.json keeps what its files held beside it."""
    kind = INTERVENTIONS.get(str(content.get("intervention")))
    fields = {key: value for key, value in content.items() if key in kind.model_fields}
    if kind.needs == "prompts":
        raise BadInputError(
            f"{run.path}: variant '{content['name']}' depends on the identify prompts, which its folder does not keep: "
            "only the run itself can answer as it"
        )
    return kind.model_validate(fields)


def _prepared(run: Run, variant: Variant) -> Prepared:
    from harness.checkpoints.delta import load_delta

    files, selection = run.layout.variant(variant.name), run.selection(variant.name)
    chosen = None
    if selection is not None:
        experts = tuple(Expert(*pair) for pair in selection.experts)
        chosen = ExpertSelection(selection.method or "", selection.phase or "", experts, selection.match)
    trains = variant.spec.needs == "training"
    kept = files.delta if variant.spec.adapter is None else files.adapter
    if trains and not kept.exists():
        raise BadInputError(f"{kept}: missing: the variant cannot answer without what was trained")
    is_delta = trains and variant.spec.adapter is None
    return Prepared(
        variant,
        chosen,
        delta=load_delta(files.delta) if is_delta else None,
        trained_in=files.adapter if trains and not is_delta else None,
    )
