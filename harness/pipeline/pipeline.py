"""The main job: capture, select, train, evaluate, prove, summarise, report.

Each step is skipped where an earlier run in the same folder finished it with the same inputs.
"""

from __future__ import annotations

import datetime
import shlex
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, VariantImpossibleError
from harness.base.files import write_json
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.config import RunConfig
from harness.judges.base import JUDGES, Judge, judge_record
from harness.models.decoding import in_words, set_aside
from harness.pipeline.answering import answer, capture_routing
from harness.pipeline.clustering import with_clusters
from harness.pipeline.colouring import write_token_shares
from harness.pipeline.conversations import training_conversations
from harness.pipeline.drifting import measure_drift
from harness.pipeline.evaluating import is_evaluated, judge_answers, measure_capability
from harness.pipeline.judging import MORE_JUDGES, with_judges
from harness.pipeline.memory import available_bytes, model_bytes, parameters_of, why_not_trainable
from harness.pipeline.plan import Plan
from harness.pipeline.selecting import make_expert_table, select
from harness.pipeline.session import Session, package_versions
from harness.pipeline.summarise import Evaluated, summarise
from harness.pipeline.training import prove_frozen, train, trained
from harness.report.write import write_reports
from harness.runs.run_folder import RunFolder
from harness.runs.summary import Summary, write_summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.interventions.base import Prepared


def default_output(config: RunConfig) -> Path:
    """Return where a run is kept when `--output` names no folder."""
    model = Path(config.model).name if "/" in config.model else config.model
    return Path("runs") / f"{model}-{config.intervention}-seed{config.seed}"


def kept_config(output: Path) -> dict[str, Any] | None:
    """Return the configuration of the run in a folder, if there is one."""
    return RunFolder(output).state.get("config")


def start(plan: Plan, output: Path, goes_on: bool = False) -> Session:
    """Open the run's folder and write down what is going to happen.

    Args:
        plan: what to do.
        output: the run folder.
        goes_on: this is a later step of the run that the folder holds, rather than a whole run, which may make it anew.

    Raises:
        BadInputError: the folder holds something else, or a later step finds another model's run.
    """
    folder = RunFolder(output)
    session = Session(plan, folder)
    # This reads the checkpoint, which may be unusable: nothing is written before it.
    model_key = session.model_key
    aside = set_aside(plan.ref.path)
    if aside:
        say(f"generation settings of the checkpoint that are set aside: {in_words(aside)}")
    if goes_on:
        _refuse_another_model(folder, plan.ref.name, model_key)
    folder.describe(
        {
            "run_id": folder.state.get("run_id") or _new_id(plan),
            "created": folder.state.get("created")
            or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["harness", *sys.argv[1:]]),
            "config": plan.config.model_dump(mode="json"),
            "model": {"name": plan.ref.name, "path": str(plan.ref.path), "fingerprint": model_key},
            "tasks": [prompt_set.record() for prompt_set in plan.sets],
            "judges": {judge.name: judge_record(judge) for judge in _judges(plan, folder)},
            "variants": {variant.name: variant.record() for variant in plan.variants},
            "seeds": session.seeds(),
            "versions": package_versions(),
            "device": session.device_type,
            MORE_JUDGES: folder.state.get(MORE_JUDGES, []),
        }
    )
    write_json(output / "splits.json", plan.splits.record())
    return session


def run(session: Session, until: str = "evaluate") -> Summary | None:
    """Do the job, or its first steps.

    Args:
        session: from `start`.
        until: capture, select, train or evaluate; after "evaluate" the summary and the reports are written.
    """
    plan = session.plan
    if plan.selects or until == "capture":
        capture_routing(session)
    if until == "capture":
        _stop(session)
        return None
    variants = select(session)
    if until == "select":
        _stop(session)
        return None
    conversations = training_conversations(session) if plan.trains else []
    for made in variants:
        if _is_trained(session, made):
            train(session, made, conversations)
    if until == "train":
        _stop(session, variants)
        return None
    evaluated = [_evaluate(session, made, conversations) for made in variants]
    return _measure(session, variants, evaluated)


def _stop(session: Session, variants: Sequence[Prepared] = ()) -> None:
    for made in variants:
        if reason := _why_skipped(session, made):
            say(f"skipping {made.name}: {reason}")
    session.folder.write_manifest()


def _is_trained(session: Session, made: Prepared) -> bool:
    return made.intervention.needs == "training" and _why_skipped(session, made) is None


def _why_skipped(session: Session, made: Prepared) -> str | None:
    """Return why a variant cannot be had on this machine, or None."""
    outline, selection = session.plan.outline, made.selection
    reason = made.intervention.why_impossible(outline, selection)
    if reason is not None or made.intervention.needs != "training" or selection is None:
        return reason
    return why_not_trainable(
        trained=parameters_of(outline, selection.experts, session.config.training.lora_rank),
        weights=model_bytes(outline, session.config.dtype),
        available=available_bytes(session.device_type),
    )


def _evaluate(session: Session, made: Prepared, conversations: list[dict[str, Any]]) -> Evaluated:
    """Let a variant answer, and judge and measure its answers."""
    item = Evaluated(made.variant, skipped=_why_skipped(session, made))
    if item.skipped is None and _is_trained(session, made):
        made = trained(session, made, conversations)
        item.trained_parameters = made.delta.parameters if made.delta else 0
    try:
        if item.skipped is None:
            _answer(session, made, item)
    except VariantImpossibleError as error:
        item.skipped = str(error)
    if item.skipped is not None:
        say(f"skipping {made.name}: {item.skipped}")
        return item
    item.verdicts = judge_answers(session, made)
    item.drift = measure_drift(session, made)
    if made.delta is not None:
        item.frozen_unchanged = prove_frozen(session, made)
    return item


@contextmanager
def _serving(session: Session, made: Prepared) -> Iterator[None]:
    """Let the run's engine answer as the variant inside the block; served.json keeps what it says was served."""
    folder = session.folder.variant(made.name)
    with session.engine.serving(made, scratch=folder / "served"):
        yield
        served = session.engine.record()
        if served is not None:
            write_json(folder / "served.json", served)


def _answer(session: Session, made: Prepared, item: Evaluated) -> None:
    with ExitStack() as stack:
        # A variant that was evaluated before is reported without the model.
        if not is_evaluated(session, made):
            stack.enter_context(_serving(session, made))
        for task in session.plan.prompts("test"):
            answer(session, made, task)
        item.capability = measure_capability(session, made)


def _measure(session: Session, variants: Sequence[Prepared], evaluated: list[Evaluated]) -> Summary:
    """Write what was found out: the summary and the reports."""
    selections = {made.name: made.selection for made in variants}
    table = make_expert_table(session) if session.plan.selects else None
    summary = summarise(session, evaluated, selections.get(session.plan.intervention.name), table)
    summary = with_clusters(session.folder, with_judges(session.folder, summary))
    write_token_shares(session, selections.get(session.plan.intervention.name))
    write_summary(session.folder.path, summary)
    write_reports(session.folder.path)
    session.folder.write_manifest()
    return summary


def _judges(plan: Plan, folder: RunFolder) -> list[Judge]:
    """Return the primary judge, then those that were added to the run since."""
    more = [name for name in folder.state.get(MORE_JUDGES, []) if name != plan.judge.name]
    return [plan.judge, *(JUDGES.get(name)() for name in more)]


def _refuse_another_model(folder: RunFolder, name: str, model_key: str) -> None:
    kept = folder.state.get("model")
    if kept is None or kept["fingerprint"] == model_key:
        return
    what = f"the weights of {name} have changed" if kept["name"] == name else f"not {name}"
    raise BadInputError(
        f"{folder.path} is a run of {kept['name']}, {what}: name another --output, or begin anew with harness run"
    )


def _new_id(plan: Plan) -> str:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{fingerprint([plan.config.model_dump(mode='json'), stamp])[:6]}"
