"""The main job: capture, select, train, evaluate, prove, summarise, report.

Each step is skipped where an earlier run in the same folder finished it with the same inputs.
"""

from __future__ import annotations

import datetime
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, VariantImpossibleError
from harness.base.files import write_json
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.config import RunConfig
from harness.interventions.apply import Variant
from harness.models.decoding import in_words, set_aside
from harness.pipeline.answering import capture_routing
from harness.pipeline.clustering import with_clusters
from harness.pipeline.colouring import write_token_shares
from harness.pipeline.conversations import training_conversations
from harness.pipeline.drifting import measure_drift
from harness.pipeline.evaluating import answer_test_prompts, is_evaluated, judge_answers, measure_capability
from harness.pipeline.judging import MORE_JUDGES, with_judges
from harness.pipeline.memory import available_bytes, model_bytes, parameters_of, why_not_trainable
from harness.pipeline.plan import Plan
from harness.pipeline.selecting import make_expert_table, select
from harness.pipeline.serving import serving
from harness.pipeline.session import Session, package_versions
from harness.pipeline.summarise import Evaluated, summarise
from harness.pipeline.training import prove_frozen, train, training_key
from harness.report.write import write_reports
from harness.runs.run_folder import RunFolder
from harness.runs.summary import Summary, write_summary

if TYPE_CHECKING:
    from harness.checkpoints.delta import ExpertDelta
    from harness.experts.select import ExpertSelection


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
    if until == "capture":
        capture_routing(session)
        session.folder.write_manifest()
        return None
    selections = select(session)
    if until == "select":
        session.folder.write_manifest()
        return None
    conversations = training_conversations(session) if session.plan.trains else []
    if until == "train":
        for variant in session.plan.variants:
            _train(session, variant, selections, conversations)
        return None
    evaluated = [_evaluate(session, variant, selections, conversations) for variant in session.plan.variants]
    table = make_expert_table(session) if session.plan.selects else None
    summary = summarise(session, evaluated, selections.get(session.plan.intervention.name), table)
    summary = with_clusters(session.folder, with_judges(session.folder, summary))
    write_token_shares(session, selections.get(session.plan.intervention.name))
    write_summary(session.folder.path, summary)
    write_reports(session.folder.path)
    session.folder.write_manifest()
    return summary


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


def _why_skipped(session: Session, variant: Variant, selection: ExpertSelection | None) -> str | None:
    """Return why a variant cannot be had on this machine, or None."""
    if selection is None:
        return None
    if variant.spec.intervention == "steer":
        from harness.interventions.steer import why_not_steerable

        return why_not_steerable(session.plan.outline, selection)
    outline = session.plan.outline
    return why_not_trainable(
        trained=parameters_of(outline, selection.experts, session.config.training.lora_rank),
        weights=model_bytes(outline, session.config.dtype),
        available=available_bytes(session.device_type),
    )


def _train(
    session: Session,
    variant: Variant,
    selections: dict[str, ExpertSelection],
    conversations: list[dict[str, Any]],
) -> ExpertDelta | None:
    selection = selections.get(variant.name)
    if not variant.spec.is_trained or selection is None:
        return None
    reason = _why_skipped(session, variant, selection)
    if reason:
        say(f"skipping {variant.name}: {reason}")
        return None
    return train(session, variant, selection, conversations)


def _evaluate(
    session: Session,
    variant: Variant,
    selections: dict[str, ExpertSelection],
    conversations: list[dict[str, Any]],
) -> Evaluated:
    selection = selections.get(variant.name)
    item = Evaluated(variant, skipped=_why_skipped(session, variant, selection))
    if item.skipped:
        say(f"skipping {variant.name}: {item.skipped}")
        return item
    delta = _train(session, variant, selections, conversations)
    state = fingerprint(
        [
            variant.spec.intervention,
            variant.spec.system_prompt,
            sorted(selection.experts) if selection else [],
        ]
    )
    if delta is not None and selection is not None:
        state = training_key(session, selection, conversations)
        item.trained_parameters = delta.parameters
    try:
        with ExitStack() as stack:
            # A variant that was evaluated before is reported without the model.
            if not is_evaluated(session, variant, state):
                stack.enter_context(serving(session, variant, selection, delta))
            answer_test_prompts(session, variant, state)
            item.capability = measure_capability(session, variant, state)
    except VariantImpossibleError as error:
        item.skipped = str(error)
        say(f"skipping {variant.name}: {error}")
        return item
    item.drift = measure_drift(session, variant, state, selection, delta)
    item.verdicts = judge_answers(session, variant)
    if delta is not None:
        item.frozen_unchanged = prove_frozen(session, variant, delta, state)
    return item
