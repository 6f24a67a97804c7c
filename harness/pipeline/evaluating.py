"""The stages that measure a variant's answers: verdicts and capability."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.base.files import read_json, read_jsonl, write_json, write_jsonl
from harness.base.fingerprint import fingerprint
from harness.judges.base import Judge, Paid, Verdict, judge_all
from harness.pipeline.answering import answer
from harness.runs.stages import stage

if TYPE_CHECKING:
    from harness.interventions.base import Prepared
    from harness.pipeline.session import Session


def is_evaluated(session: Session, made: Prepared) -> bool:
    """Say whether an earlier run finished all that needs the engine to answer as this variant."""
    answered = all(answer.is_done(session, made, task) for task in session.plan.prompts("test"))
    return answered and (not session.config.capability.tasks or _capability.is_done(session, made))


def _verdicts_key(session: Session, made: Prepared, task: str, judge: Judge) -> str:
    return fingerprint([judge.fingerprint, session.folder.hash_of(session.folder.responses(made.name, task))])


def _is_paid(session: Session, made: Prepared, task: str, judge: Judge) -> bool:
    # It keeps the verdicts that were paid for, and asks again for those that failed.
    return isinstance(judge, Paid)


@stage(
    "judge {made.name}/{task}",
    writes="variants/{made.name}/verdicts/{task}.{judge.name}.jsonl",
    key=_verdicts_key,
    again=_is_paid,
)
def _verdicts(session: Session, made: Prepared, task: str, judge: Judge) -> None:
    found = judge_all(judge, read_jsonl(session.folder.responses(made.name, task)))
    write_jsonl(session.folder.verdicts(made.name, task, judge.name), (verdict.row() for verdict in found))


def judge_answers(session: Session, made: Prepared) -> dict[str, list[Verdict]]:
    """Return the primary judge's verdicts on a variant's test answers, by task."""
    judge, found = session.plan.judge, {}
    for task in session.plan.prompts("test"):
        _verdicts(session, made, task, judge)
        rows = read_jsonl(session.folder.verdicts(made.name, task, judge.name))
        found[task] = [Verdict(**row) for row in rows]
    return found


def _capability_key(session: Session, made: Prepared) -> str:
    return session.key(
        made=made.fingerprint,
        capability=session.config.capability.deciding("measures"),
        tasks=session.plan.capability,
        seed=session.config.seed,
    )


@stage("capability {made.name}", writes="variants/{made.name}/capability.json", key=_capability_key)
def _capability(session: Session, made: Prepared) -> None:
    from harness.capability.lm_eval import run_capability

    settings = session.config.capability
    results = run_capability(
        session.engine,
        settings.tasks,
        include=session.config.include,
        data_dirs=session.config.data_dir,
        limit=settings.limit,
        batch_size=settings.batch_size,
        seed=session.config.seed,
        num_fewshot=settings.num_fewshot,
        apply_chat_template=settings.chat_template,
        system_prompt=made.system_prompt,
        description=f"capability {made.name}",
    )
    path = session.folder.variant(made.name) / "capability.json"
    write_json(path, {task: result.row() for task, result in results.items()})


def measure_capability(session: Session, made: Prepared) -> dict[str, dict[str, Any]]:
    """Run lm-eval on a variant; kept, with a score for each item, as capability.json."""
    if not session.config.capability.tasks:
        return {}
    _capability(session, made)
    return dict(read_json(session.folder.variant(made.name) / "capability.json"))
