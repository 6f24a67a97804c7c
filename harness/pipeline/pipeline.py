"""The main path of a run: plan, capture, select, train, answer, judge, measure, report.

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
from harness.base.memory import return_freed
from harness.base.progress import job, say
from harness.config import RunConfig
from harness.judges.base import judge_record
from harness.judges.find import judge_of_run
from harness.models.clock import clock_at
from harness.models.decoding import in_words
from harness.models.quantized import why_not_trained
from harness.pipeline.answer import answer
from harness.pipeline.askable import check_askable, unknown_end
from harness.pipeline.askable import in_words as counted
from harness.pipeline.capture import capture_routing
from harness.pipeline.conversations import training_conversations
from harness.pipeline.drift import measure_drift
from harness.pipeline.judge import CARDS, MORE_JUDGES, judge_answers, judge_with_others, name_card
from harness.pipeline.measure import is_evaluated, measure_capability
from harness.pipeline.memory import available_bytes, model_bytes, parameters_of, why_not_trainable
from harness.pipeline.other_routes import in_place_of_base
from harness.pipeline.pieces import pieces
from harness.pipeline.plan import Plan
from harness.pipeline.select import select
from harness.pipeline.session import Session, package_versions
from harness.pipeline.token_shares import write_token_shares
from harness.pipeline.train import prove_frozen, train, trained
from harness.pipeline.train_adapter import train_adapter, trained_adapter
from harness.report.write import write_measured
from harness.runs.labels import LABELS
from harness.runs.layout import PATHS
from harness.runs.run_folder import RunFolder
from harness.runs.summary import Summary
from harness.tracking.base import About, find_tracker
from harness.tracking.watch import Watch, settings_of, watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.interventions.base import Prepared, Variant


def default_output(config: RunConfig) -> Path:
    """Return where a run is kept when `--output` names no folder."""
    is_path = "/" in config.model or config.model in (".", "..")
    model = Path(config.model).resolve().name if is_path else config.model
    versus = "vs-" if config.variant is not None else ""
    return Path("runs") / f"{model}-{versus}{config.intervention}-seed{config.seed}"


def kept_config(output: Path) -> dict[str, Any] | None:
    """Return the configuration of the run in a folder, if there is one; its judge's card is the run's own copy."""
    folder = RunFolder(output)
    config: dict[str, Any] | None = folder.state.get("config")
    if config is None or config.get("card") is None:
        return config
    return {**config, "card": str(folder.layout.card(next(iter(folder.state["judges"]))))}


def start(plan: Plan, output: Path, resume: bool = False, command: str | None = None) -> Session:
    """Open the run's folder and write down what is going to happen.

    Args:
        plan: what to do.
        output: the run folder.
        resume: continue the run that the folder holds with a later step; a whole run may make it anew.
        command: the command line to record; that of this process by default.

    Raises:
        BadInputError: the folder holds something else, or a later step finds another model's run.
    """
    folder = RunFolder(output)
    session = Session(plan, folder)
    # This reads the checkpoint, which may be unusable: nothing is written before it.
    variants = {variant.name: _record(plan, variant) for variant in plan.variants}
    model_key, kept = session.model.fingerprint, folder.state.get("model")
    _say_how_prompts_are_asked(plan)
    if resume and kept is not None and kept["fingerprint"] != model_key:
        name = plan.ref.name
        reason = f"the weights of {name} have changed" if kept["name"] == name else f"not {name}"
        raise BadInputError(
            f"{output} is a run of {kept['name']}, {reason}: name another --output, or begin anew with harness run"
        )
    now, config = datetime.datetime.now(datetime.UTC), plan.config.model_dump(mode="json")
    stamp, outline = now.strftime("%Y%m%d-%H%M%S"), plan.outline
    more = {judge.name: judge for judge in plan.more_judges}
    for name in folder.state.get(MORE_JUDGES, []):
        if name not in more and name != plan.judge.name:
            more[name] = judge_of_run(name, folder.state["judges"])
    card, named = plan.config.card, folder.state.get(CARDS, {})
    is_copied = card is not None and card.resolve() == folder.layout.card(plan.judge.name).resolve()
    if is_copied:
        _refuse_changed(folder, folder.layout.card(plan.judge.name), "name its file again with --card")
    for labels in (folder.layout.labels, folder.layout.labels_of_harm):
        _refuse_changed(
            folder, labels, "remove it, and add the labels again with `harness measure RUN --labels FILE`"
        )
    configuration = fingerprint(
        [
            *(config, model_key, plan.asked(), session.seeds(), package_versions(), session.device_type),
            [prompt_set.record() for prompt_set in plan.sets],
            variants,
            judge_record(plan.judge),
        ]
    )
    is_same = configuration == folder.state.get("configuration")
    folder.describe(
        {
            "run_id": folder.state.get("run_id") or f"{stamp}-{fingerprint([config, stamp])[:6]}",
            "created": folder.state.get("created") or now.isoformat(timespec="seconds"),
            "command": command or shlex.join(["harness", *sys.argv[1:]]),
            "config": config,
            "configuration": configuration,
            "model": {
                "name": plan.ref.name,
                "path": str(plan.ref.path),
                "fingerprint": model_key,
                "moe_layers": len(outline.layers),
                "experts_per_layer": outline.n_experts,
                "experts_per_token": outline.experts_per_token,
                "parameters": outline.n_parameters,
                "set_aside": plan.set_aside,
                "followed": plan.followed,
                "reads_clock": plan.chat.reads_clock,
            },
            "tasks": [prompt_set.record() for prompt_set in plan.sets],
            "judges": {judge.name: judge_record(judge) for judge in [plan.judge, *more.values()]},
            "variants": variants,
            "seeds": session.seeds(),
            "versions": package_versions(),
            "device": session.device_type,
            "engine": plan.engine.name,
            "sampling": _sampling(plan),
            "asked": plan.asked(),
            "groups": plan.groups,
            "thinking": plan.chat.thinking.record(),
            "spelling_control_tokens": plan.spelling_control_tokens,
            "clock": session.clock.isoformat(),
            "control_tasks": plan.control_tasks(),
            "claim_prompts": {
                task: [prompt.id for prompt in asked] for task, asked in plan.claim_prompts.items()
            },
            "evaluated": folder.state.get("evaluated", {}) if is_same else {},
            MORE_JUDGES: list(more),
            CARDS: {name: named[name] for name in named if name != plan.judge.name or is_copied},
            **{key: folder.state[key] for key in LABELS.values() if key in folder.state},
        }
    )
    if not is_same:
        _forget_imported(folder)
    if card is not None and not is_copied:
        name_card(folder, plan.judge, card)
    folder.write_again(folder.layout.splits, plan.splits.record())
    return session


def _forget_imported(folder: RunFolder) -> None:
    """Remove scores that lm-eval gave variants of other settings (`harness import`)."""
    for path in sorted(folder.path.glob(str(PATHS.variant("*").imported))):
        say(f"{path.relative_to(folder.path)} is of other settings: removed, import it again")
        path.unlink()


def _record(plan: Plan, variant: Variant) -> dict[str, Any]:
    """Return a variant's specification, with what a reader must know of how it is asked."""
    caveat = variant.spec.caveat(plan.ref)
    return variant.record() | ({} if caveat is None else {"caveat": caveat})


def _refuse_changed(folder: RunFolder, path: Path, remedy: str) -> None:
    """Refuse a file that a person gave to the run, and that no stage can make again.

    Raises:
        BadInputError: it is another one than the manifest lists.
    """
    if path.is_file() and not folder.was_left(path):
        raise BadInputError(f"{path} is not what the run wrote; {remedy}")


def _sampling(plan: Plan) -> dict[str, Any] | None:
    """Return how answers to test prompts are sampled, as run.json keeps it."""
    if plan.sampling is None:
        return None
    return {**plan.sampling._asdict(), "not_seeded": plan.engine.why_not_seeded()}


def _say_how_prompts_are_asked(plan: Plan) -> None:
    if (thinking := plan.chat.thinking.in_words()) is not None:
        say(f"thinking: {thinking}")
    if plan.sampling is not None and (reason := plan.engine.why_not_seeded()) is not None:
        say(
            f"sampled answers depend on those they are generated with, and variants share no random numbers: {reason}"
        )
    if (unended := unknown_end(plan, plan.chat)) is not None:
        say(unended)
    if plan.set_aside:
        say(f"generation settings of the checkpoint that are set aside: {in_words(plan.set_aside)}")
    if plan.followed:
        say(f"generation settings of the checkpoint that are followed: {in_words(plan.followed)}")
    if plan.spelling_control_tokens:
        say(f"prompts that spell a control token, read as text: {counted(plan.spelling_control_tokens)}")


def run(session: Session, until: str = "evaluate", quiet: bool = False) -> Summary | None:
    """Do the job, or its first steps.

    Args:
        session: from `start`.
        until: capture, select, train or evaluate; after "evaluate" the summary and the reports are written.
        quiet: show neither progress nor messages.
    """
    folder, track = session.folder, session.config.track
    if track is not None:
        session.watch = Watch(track, find_tracker(track))
    folder.on_stage = session.watch.stage
    with (
        clock_at(session.clock),
        job(pieces(session.plan, session.device_type, until), quiet),
        watching(session.watch, lambda: _about(session)),
    ):
        summary = _run(session, until)
    if (kept := session.watch.record()) is not None:
        folder.update({"tracking": kept})
        folder.write_manifest()
    return summary


def _about(session: Session) -> About:
    """Return the run as a tracker lists it."""
    folder, plan = session.folder, session.plan
    facts = {
        "model_fingerprint": session.model.fingerprint,
        "device": session.device_type,
        "engine": plan.engine.name,
        "variants": [variant.name for variant in plan.variants],
        "versions": folder.state["versions"],
    }
    settings = settings_of({**session.config.model_dump(mode="json"), "run": facts})
    return About(folder.state["run_id"], folder.path.resolve().name, settings)


def _run(session: Session, until: str) -> Summary | None:
    plan, folder = session.plan, session.folder
    if until == "evaluate":
        folder.update({"evaluated": {}})
    if plan.selects or until == "capture":
        if not plan.selects:
            check_askable(plan, plan.chat, ["identify"])
        capture_routing(session)
    reason = plan.engine.why_answers_change_with_capture(session.config)
    if plan.selects and until == "evaluate" and reason is not None:
        say(f"routing on test prompts is not captured, so chosen experts are not described there: {reason}")
    variants = [] if until == "capture" else select(session)
    skipped, conversations = {}, []
    if until in ("train", "evaluate"):
        skipped = {made.name: _why_impossible(session, made) for made in variants}
        to_train = [
            made for made in variants if made.intervention.needs == "training" and skipped[made.name] is None
        ]
        if to_train and until == "evaluate" and plan.chat.thinking.tokens is not None:
            # A model whose answers never begin is not worth training.
            _evaluate(session, variants[0], [], skipped[variants[0].name])
        conversations = training_conversations(session) if to_train else []
        for made in to_train:
            work = train if made.intervention.adapter is None else train_adapter
            work(session, made, conversations)
            # The optimizer's state would be held beside lm-eval's logits.
            return_freed()
    if until != "evaluate":
        for name, reason in skipped.items():
            if reason is not None:
                say(f"skipping {name}: {reason}")
        folder.write_manifest()
        return None
    for made in variants:
        _evaluate(session, made, conversations, skipped[made.name])
    judge_with_others(folder, [plan.judge, *plan.more_judges])
    selections = {made.name: made.selection for made in variants}
    write_token_shares(session, selections[plan.intervention.name])
    summary = write_measured(folder)
    session.watch.results(folder.path, summary)
    return summary


def _why_impossible(session: Session, made: Prepared) -> str | None:
    """Return why a variant cannot be made on this machine, or None."""
    outline, selection = session.plan.outline, made.selection
    if made.lacks_experts is not None:
        return made.lacks_experts
    reason = made.intervention.why_impossible(outline, selection)
    if reason is not None or made.intervention.needs != "training" or selection is None:
        return reason
    reason = why_not_trained(session.plan.ref.path)
    if reason is not None:
        return reason
    return why_not_trainable(
        trained=parameters_of(outline, selection.experts, session.config.training.lora_rank),
        weights=model_bytes(outline, session.config.dtype),
        available=available_bytes(session.device_type),
    )


def _evaluate(
    session: Session, made: Prepared, conversations: list[dict[str, Any]], skipped: str | None
) -> None:
    """Let a variant answer, judge its answers and measure it, unless it has to be skipped."""
    if skipped is None:
        if made.intervention.needs == "training":
            done = trained if made.intervention.adapter is None else trained_adapter
            made = done(session, made, conversations)
        try:
            with _serving(session, made):
                for task in session.plan.test_prompts(made.variant):
                    answer(session, made, task)
                measure_capability(session, made)
        except VariantImpossibleError as error:
            skipped = str(error)
    if skipped is None:
        judge_answers(session, made)
        measure_drift(session, made)
        if made.delta is not None:
            prove_frozen(session, made)
    else:
        say(f"skipping {made.name}: {skipped}")
    is_limited = session.plan.is_limited(made.variant)
    tasks = list(session.plan.test_prompts(made.variant)) if is_limited else None
    session.folder.note_evaluated(made.name, trained=made.training is not None, skipped=skipped, tasks=tasks)


def _is_damaged(folder: RunFolder, path: Path) -> bool:
    """Say whether a file is another one than the manifest lists, and name it."""
    if not path.is_file() or folder.was_left(path):
        return False
    say(f"{path.relative_to(folder.path)} is not what the run wrote: making it again")
    return True


@contextmanager
def _serving(session: Session, made: Prepared) -> Iterator[None]:
    """Let the run's engine answer as the variant inside the block; served.json keeps what it says was served."""
    files = session.folder.layout.variant(made.name)
    if is_evaluated(session, made) and not _is_damaged(session.folder, files.served):
        # It is reported without the model.
        yield
        return
    with ExitStack() as stack:
        if made.intervention.is_other_model:
            stack.enter_context(in_place_of_base(session, made))
        stack.enter_context(session.engine.serving(made, scratch=files.folder / "served"))
        yield
        served = session.engine.record()
        if served is not None:
            write_json(files.served, served)
