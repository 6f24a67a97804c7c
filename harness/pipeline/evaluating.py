"""The stages that measure a variant: test answers, verdicts and capability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.files import read_json, read_jsonl, write_json, write_jsonl
from harness.judges.base import Verdict, judge_all
from harness.pipeline.answering import answer, contents

if TYPE_CHECKING:
    from harness.interventions.apply import Variant
    from harness.pipeline.session import Session


def answer_test_prompts(session: Session, variant: Variant, state: str) -> None:
    """Let a variant answer every test prompt.

    Args:
        session: the run; its model is in the variant's state.
        variant: which variant.
        state: fingerprint of what was done to the model.
    """
    for task, prompts in session.plan.prompts("test").items():
        answer(
            session,
            f"answer {variant.name}/{task}",
            _answer_key(session, state, task),
            prompts,
            session.folder.responses(variant.name, task),
            session.plan.max_new_tokens(task),
            variant.spec.system_prompt,
            opening=session.plan.opening(task),
        )


def is_evaluated(session: Session, variant: Variant, state: str) -> bool:
    """Say whether an earlier run finished all that needs the model in this variant's state."""
    folder = session.folder
    answered = all(
        folder.is_done(
            f"answer {variant.name}/{task}",
            _answer_key(session, state, task),
            [folder.responses(variant.name, task)],
        )
        for task in session.plan.prompts("test")
    )
    capability = folder.variant(variant.name) / "capability.json"
    return answered and (
        not session.config.capability.tasks
        or folder.is_done(f"capability {variant.name}", _capability_key(session, state), [capability])
    )


def _answer_key(session: Session, state: str, task: str) -> str:
    prompts = session.plan.prompts("test")[task]
    opening = session.plan.opening(task)
    return session.key(
        state=state,
        prompts=contents(prompts),
        max_new_tokens=session.plan.max_new_tokens(task),
        **({"opening": opening} if opening else {}),
    )


def _capability_key(session: Session, state: str) -> str:
    return session.key(
        state=state,
        capability=session.config.capability.deciding("measures"),
        tasks=session.plan.capability,
        seed=session.config.seed,
    )


def judge_answers(session: Session, variant: Variant) -> dict[str, list[Verdict]]:
    """Judge a variant's test answers; takes milliseconds, so it is done anew each time."""
    judge = session.plan.judge
    verdicts = {}
    for task in session.plan.prompts("test"):
        verdicts[task] = judge_all(judge, read_jsonl(session.folder.responses(variant.name, task)))
        rows = (verdict.row() for verdict in verdicts[task])
        write_jsonl(session.folder.verdicts(variant.name, task, judge.name), rows)
    return verdicts


def measure_capability(session: Session, variant: Variant, state: str) -> dict[str, dict[str, Any]]:
    """Run lm-eval on a variant; kept, with a score for each item, as capability.json."""
    settings = session.config.capability
    if not settings.tasks:
        return {}
    path = session.folder.variant(variant.name) / "capability.json"
    stage = f"capability {variant.name}"
    key = _capability_key(session, state)
    if not session.folder.is_done(stage, key, [path]):
        from harness.capability.lm_eval import run_capability

        with session.folder.stage(stage, key):
            vllm = session.vllm if session.engine_name == "vllm" else None
            results = run_capability(
                None if vllm else session.loaded.moe.model,
                vllm.tokenizer if vllm else session.loaded.tokenizer,
                settings.tasks,
                vllm=vllm,
                include=session.config.include,
                data_dirs=session.config.data_dir,
                limit=settings.limit,
                batch_size=settings.batch_size,
                seed=session.config.seed,
                num_fewshot=settings.num_fewshot,
                apply_chat_template=settings.chat_template,
                chat_template_kwargs=session.config.generation.chat_template_kwargs,
                system_prompt=variant.spec.system_prompt,
                description=stage,
            )
            write_json(path, {task: result.row() for task, result in results.items()})
    return dict(read_json(path))
