"""A run of routing that another engine recorded: scores, selection and report follow from its folder, without a model.

Nothing is asked and nothing is trained in such a run. Of the model only config.json is read.
"""

from __future__ import annotations

import datetime
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, nearest
from harness.base.files import sha256, write_json, write_jsonl, write_whole
from harness.base.fingerprint import fingerprint
from harness.base.progress import say
from harness.data.splits import pair_keys_of
from harness.data.task import paired_benign
from harness.experts.permutation import FEWEST_PROMPTS
from harness.experts.table import Group
from harness.interventions.base import Variant
from harness.interventions.spec import BASE, find_variant
from harness.judges.base import judge_record
from harness.judges.find import make_judges
from harness.models.load import ModelRef, outline_model, resolve_model
from harness.pipeline.judge import judge_with_others
from harness.pipeline.recorded_tasks import RecordedTask, answer_of, read_tasks
from harness.pipeline.select import CapturedTask, record_of, selected_in, table_of
from harness.pipeline.session import package_versions, random_draw_seed
from harness.report.write import write_measured
from harness.routing.counts import join
from harness.routing.files import load_counts, save_routing
from harness.runs.layout import Layout
from harness.runs.run import Run, read_run
from harness.runs.run_folder import RunFolder

if TYPE_CHECKING:
    from harness.config import RunConfig
    from harness.data.prompts import PromptSet
    from harness.models.moe import MoEModel
    from harness.runs.summary import Summary

RECORDED = "recorded"
"""The key of run.json with the files that routing came from, and the engine of such a run."""
_NOT_ASKED = "its routing was recorded elsewhere, and nothing is asked here"


def is_recorded(folder: Path) -> bool:
    """Say whether a folder is a run of recorded routing."""
    layout = Layout(folder)
    return layout.run.is_file() and RECORDED in Run(folder).content


def capture_recorded(files: Sequence[Path], config: RunConfig, output: Path) -> None:
    """Write a run of recorded routing: its counts, checked as those of capture are.

    Args:
        files: JSONL (`RecordedAnswer`), read one after another.
        config: the run's settings; the files say which tasks it has.
        output: a new or empty folder, or an earlier such run.

    Raises:
        BadInputError: a file cannot be used, an array fits no model, or the folder holds something else. Nothing was
            written then.
    """
    if Layout(output).is_run() and not is_recorded(output):
        raise BadInputError(f"{output} holds a run that asked its model: name another --output")
    variant = _intervention(config)
    ref = _model(config)
    outline = outline_model(ref)
    tasks, sets = read_tasks(files, config)
    counts = {
        task.name: join(
            [
                each.counts(prompt.id, outline)
                for prompt, each in zip(task.prompts, task.recorded, strict=True)
            ]
        )
        for task in tasks
    }
    config = config.model_copy(update={"tasks": [task.name for task in tasks], "baselines": []})
    folder = RunFolder(output)
    folder.describe(_facts(files, config, ref, outline, variant, tasks, sets))
    write_json(folder.layout.splits, {"tasks": _splits(tasks, sets)})
    for task in tasks:
        writes = (folder.layout.captured_answers(task.name), folder.layout.routing(task.name))
        with folder.stage(f"capture {task.name}", fingerprint(folder.state[RECORDED]), writes):
            rows = zip(task.prompts, task.recorded, strict=True)
            write_jsonl(writes[0], [answer_of(*row).row() for row in rows])
            save_routing(counts[task.name], writes[1])


def select_recorded(output: Path, config: RunConfig) -> Summary:
    """Score the experts of a run of recorded routing and select those of its intervention; the report is written too.

    Args:
        output: the run folder.
        config: the run's settings.

    Raises:
        BadInputError: a file is not what the run wrote, there are too few prompts of a kind, or a setting needs the
            model.
    """
    run = read_run(output)
    run.verify()
    variant, settings, seed = _intervention(config), config.selection, config.seed
    if config.model != run.record.config.get("model"):
        raise BadInputError(
            f"{output} is a run of {run.model.name}, not of {config.model}: name another --output"
        )
    captured = _captured(run)
    for kind in ("harmful", "benign"):
        n = sum(len(each.texts) for each in captured.values() if each.kind == kind)
        if n < FEWEST_PROMPTS:
            raise BadInputError(
                f"{output}: the routing of {n} {kind} prompts was recorded, expected {FEWEST_PROMPTS} at least"
            )
    control = _control(settings.control, run, captured)
    folder = RunFolder(output)
    files = folder.layout.variant(variant.name)
    table = table_of(captured, control, settings, seed)
    own = selected_in(table, variant.spec.selection_of(settings), seed)
    chosen = variant.spec.choose(own, outline_model(_model(config)), random_draw_seed(seed, 0))
    folder.update(
        {"config": config.model_dump(mode="json"), "control_tasks": control, "variants": _variants(variant)}
    )
    known = fingerprint([config.model_dump(mode="json"), folder.state[RECORDED]])
    with folder.stage("expert table", known, [folder.layout.experts]):
        write_whole(folder.layout.experts, lambda temporary: table.to_parquet(temporary, index=False))
    if chosen is not None:
        with folder.stage(f"select {variant.name}", known, [files.selection]):
            write_json(files.selection, record_of(chosen, own))
    for name in folder.state["variants"]:
        folder.note_evaluated(name, trained=False, skipped=_NOT_ASKED)
    judge_with_others(folder)
    return write_measured(folder)


def refuse_to_ask(output: Path, command: str) -> None:
    """Refuse a step that needs the model.

    Raises:
        BadInputError: always.
    """
    raise BadInputError(
        f"{output} has routing that was recorded elsewhere, without a model to {command}: `harness select` and "
        "`harness analyze` need none; for more, capture with the model into another --output"
    )


def _intervention(config: RunConfig) -> Variant:
    spec = find_variant(config.intervention, config.include, "intervention")
    if not spec.uses_selection or spec.is_drawn:
        raise BadInputError(
            f"--intervention {config.intervention} selects no experts by their routing: expected one that does, such "
            "as unsafe_experts"
        )
    return Variant(spec.name, spec)


def _model(config: RunConfig) -> ModelRef:
    is_local = config.model in ("demo", "smol-moe") or Path(config.model).expanduser().is_dir()
    if not is_local:
        raise BadInputError(
            f"--model {config.model}: no such folder; recorded routing needs a folder with the model's config.json, "
            "and no weights"
        )
    return resolve_model(config.model, config.trust_remote_code, config.trust_remote_tokenizer)


def _facts(
    files: Sequence[Path],
    config: RunConfig,
    ref: ModelRef,
    outline: MoEModel,
    variant: Variant,
    tasks: Sequence[RecordedTask],
    sets: Sequence[PromptSet],
) -> dict[str, Any]:
    """Return the run.json of the run."""
    now = datetime.datetime.now(datetime.UTC)
    sources = [{"file": str(file.absolute()), "sha256": sha256(file)} for file in files]
    judge = make_judges(config.judges or ["builtin"], config.include, config.judge_settings)[0]
    known = fingerprint([sources, config.model_dump(mode="json"), package_versions()])
    records = {each.spec.name: each.record() for each in sets}
    return {
        "run_id": f"{now:%Y%m%d-%H%M%S}-{known[:6]}",
        "created": now.isoformat(timespec="seconds"),
        "command": shlex.join(["harness", *sys.argv[1:]]),
        "config": config.model_dump(mode="json"),
        "configuration": known,
        "model": {
            "name": ref.name,
            "path": str(ref.path),
            "fingerprint": "",
            "moe_layers": len(outline.layers),
            "experts_per_layer": outline.n_experts,
            "experts_per_token": outline.experts_per_token,
            "parameters": outline.n_parameters,
        },
        "tasks": [
            records.get(task.name) or {"name": task.name, "version": task.version, "kind": task.kind}
            for task in tasks
        ],
        "judges": {judge.name: judge_record(judge)},
        "variants": _variants(variant),
        "seeds": {"splits": config.seed_of_splits},
        "versions": package_versions(),
        "engine": RECORDED,
        RECORDED: sources,
        "sampling": None,
        "asked": {
            task.name: {
                "kind": task.kind,
                "max_new_tokens": max(each.generated_tokens for each in task.recorded),
                "opening": "",
            }
            for task in tasks
        },
        "spelling_control_tokens": {},
        "control_tasks": paired_benign([each.spec for each in sets]),
        "claim_prompts": {},
        "evaluated": {},
        "more_judges": [],
    }


def _variants(variant: Variant) -> dict[str, Any]:
    base = Variant(BASE, find_variant(BASE))
    return {each.name: each.record() for each in (base, variant)}


def _splits(tasks: Sequence[RecordedTask], sets: Sequence[PromptSet]) -> dict[str, Any]:
    return {
        task.name: {
            "fingerprint": fingerprint([prompt.identity() for prompt in task.prompts]),
            "ids": {"identify": [prompt.id for prompt in task.prompts]},
            "categories": {
                prompt.id: prompt.category for prompt in task.prompts if prompt.category is not None
            },
            "pairs": {
                prompt.id: key.replace("\0pair\0", "/")
                for prompt, key in zip(task.prompts, pair_keys_of(task.prompts, sets), strict=True)
                if key is not None
            },
        }
        for task in tasks
    }


def _captured(run: Run) -> dict[str, CapturedTask]:
    captured = {}
    for task in run.record.tasks:
        counts, split = load_counts(run.captured[task.name]), run.splits.tasks[task.name]
        answers = {answer.id: answer for answer in run.captured_answers(task.name)}
        captured[task.name] = CapturedTask(
            task.kind,
            Group(counts),
            [answers[id].prompt for id in counts.ids],
            [split.pairs.get(id) for id in counts.ids],
        )
    return captured


def _control(asked: list[str] | None, run: Run, captured: Mapping[str, CapturedTask]) -> list[str]:
    if asked is None:
        return run.record.control_tasks
    for task in asked:
        if task not in captured or captured[task].kind != "benign":
            benign = [name for name, each in captured.items() if each.kind == "benign"]
            raise BadInputError(f"--control {task}: no benign task of this run, {nearest(task, benign)}")
    if not asked:
        say("no control prompts: topic_adjusted is left out")
    return asked
