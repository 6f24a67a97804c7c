"""The stage that measures a variant by lm-eval, and whether a variant still has to answer anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.files import write_json
from harness.pipeline.answer import answering
from harness.runs.layout import PATHS
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.capability.results import CapabilityResult
    from harness.config import RunConfig
    from harness.engines.base import Engine
    from harness.engines.unanswered import Unanswered
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session

_VARIANT = PATHS.variant("{made.name}")


def is_evaluated(session: Session, made: Prepared) -> bool:
    """Say whether an earlier run finished all that needs the engine to answer as this variant."""
    plan = session.plan
    answered = all(
        answering(session, made, task).is_done(session, made, task)
        for task in plan.test_prompts(made.variant)
    )
    has_capability = plan.config.capability.tasks and not plan.is_limited(made.variant)
    return answered and (not has_capability or _capability.is_done(session, made))


def measure_capability(session: Session, made: Prepared) -> None:
    """Run lm-eval on a variant; kept, with a score for each item, as capability.json.

    Not of a variant that only answers the prompts of the claim.
    """
    if session.config.capability.tasks and not session.plan.is_limited(made.variant):
        _capability(session, made)
    else:
        # That of earlier settings would be taken for this run's.
        session.folder.layout.variant(made.name).capability.unlink(missing_ok=True)


def _capability_key(session: Session, made: Prepared) -> str:
    return session.key(
        made=made.fingerprint,
        capability=session.config.capability.deciding("measures"),
        tasks=session.plan.capability,
        seed=session.config.seed,
    )


@stage("capability {made.name}", writes=str(_VARIANT.capability), key=_capability_key)
def _capability(session: Session, made: Prepared) -> None:
    results = capability_with(
        session.engine,
        session.config,
        system_prompt=made.system_prompt,
        description=f"capability {made.name}",
    )
    path = session.folder.layout.variant(made.name).capability
    write_json(path, {task: result.row() for task, result in results.items()})


def capability_with(
    engine: Engine | Unanswered, config: RunConfig, **how: Any
) -> dict[str, CapabilityResult]:
    """Run lm-eval as the settings ask for.

    Args:
        engine: what answers.
        config: the settings.
        how: what else `run_capability` takes, of a variant.
    """
    from harness.capability.lm_eval import run_capability

    settings = config.capability
    return run_capability(
        engine,
        settings.tasks,
        include=config.include,
        data_dirs=config.data_dir,
        limit=settings.limit,
        batch_size=settings.batch_size,
        seed=config.seed,
        num_fewshot=settings.num_fewshot,
        apply_chat_template=settings.chat_template,
        **how,
    )
