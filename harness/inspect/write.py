"""The export format `inspect`: a run as logs of inspect_ai, one per variant and task."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.fingerprint import fingerprint
from harness.data.task import AskedTask
from harness.inspect.library import require_inspect
from harness.runs.run import Run

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore
    from inspect_ai.model import ChatMessage, ModelUsage

    from harness.data.answer import Answer
    from harness.export.export import Export, Files
    from harness.judges.base import Verdict

KEY = "moe-safety-harness"
"""The entry of a log's metadata with what of run.json says how the answers came about."""
# What of run.json is no other run's; the log has the rest in fields of its own.
_KEPT = (
    "run_id",
    "config",
    "model",
    "seeds",
    "versions",
    "device",
    "engine",
    "clock",
    "thinking",
    "sampling",
)


def files(what: Export) -> Files:
    """Return the logs by name, and what writes each.

    Raises:
        BadInputError: inspect_ai is not installed, or nothing was answered yet.
    """
    require_inspect("--format inspect")
    run = what.run
    asked = [
        (variant, task)
        for variant, evaluated in run.record.evaluated.items()
        if evaluated.skipped is None
        for task in run.answered(variant)
        if task in run.record.asked
    ]
    if not asked:
        raise BadInputError(f"{run.path}: no variant has answered test prompts yet: evaluate first")
    return {_name(run, *pair): functools.partial(_write, run, *pair) for pair in asked}


def _name(run: Run, variant: str, task: str) -> str:
    """Return a log's name in inspect's form: TIME_TASK_ID.eval, without underscores in the parts."""
    time = (run.record.created or "").replace(":", "-")
    about = f"{AskedTask.read(task).name}{'-forced' if AskedTask.read(task).forced else ''}-{variant}"
    return f"{time}_{about.replace('_', '-')}_{_id(run, variant, task)}.eval"


def _id(run: Run, *parts: str) -> str:
    return fingerprint([run.record.run_id, *parts])[:22]


def _write(run: Run, variant: str, task: str, path: Path) -> None:
    from inspect_ai.log import write_eval_log

    write_eval_log(log_of(run, variant, task), path, format="eval")


def log_of(run: Run, variant: str, task: str) -> EvalLog:
    """Return the log of a variant's answers to a task."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats
    from inspect_ai.model import GenerateConfig
    from inspect_ai.viewer import ViewerConfig

    record, asked = run.record, run.record.asked[task]
    answers = run.answers(variant, task)
    verdicts = {judge: run.verdicts(variant, task, judge) for judge in run.judges(variant, task)}
    specification, sampling = run.variants[variant], record.sampling
    model = f"harness/{run.model.name}@{variant}"
    spec = EvalSpec(
        created=record.created or "",
        run_id=record.run_id or "",
        eval_id=_id(run, variant, task, "eval"),
        task=task,
        task_id=_id(run, variant, task),
        task_version=next(
            (each.version for each in record.tasks if each.name == AskedTask.read(task).name), 0
        ),
        task_args={"kind": asked.kind, "opening": asked.opening},
        dataset=EvalDataset(
            name=task,
            samples=len({answer.prompt_id for answer in answers}),
            sample_ids=list(dict.fromkeys(answer.prompt_id for answer in answers)),
        ),
        model=model,
        model_args={"variant": specification},
        model_generate_config=GenerateConfig(
            max_tokens=asked.max_new_tokens,
            temperature=0.0 if sampling is None else sampling.temperature,
            top_p=None if sampling is None else sampling.top_p,
            seed=None if sampling is None else sampling.seed,
        ),
        config=EvalConfig(epochs=1 if sampling is None else sampling.answers),
        packages=record.versions,
        # What a model without safeguards wrote is shown as plain text.
        viewer=ViewerConfig(trust_content=False),
        metadata={KEY: _about(run, variant, task)},
    )
    samples = list(_samples(run, model, variant, task, answers, verdicts))
    return EvalLog(
        status="success",
        eval=spec,
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=[_figures(run, variant, task, judge, each) for judge, each in verdicts.items()],
        ),
        stats=EvalStats(
            started_at=record.created or "",
            completed_at=record.created or "",
            model_usage=_usage(model, samples),
        ),
        samples=samples,
    )


def _about(run: Run, variant: str, task: str) -> dict[str, Any]:
    """Return what a run that is made of the log again has to know."""
    name = AskedTask.read(task).name
    splits = run.splits.tasks.get(name) if run.layout.splits.is_file() else None
    return {
        **{key: run.content[key] for key in _KEPT if key in run.content},
        "variant": variant,
        "asked": run.record.asked[task].model_dump(mode="json"),
        "task": next((row for row in run.content["tasks"] if row["name"] == name), None),
        "split": None if splits is None else splits.model_dump(mode="json"),
        "judges": run.content["judges"],
    }


def _samples(
    run: Run,
    model: str,
    variant: str,
    task: str,
    answers: list[Answer],
    verdicts: dict[str, list[Verdict]],
) -> Iterator[EvalSample]:
    from inspect_ai.log import EvalSample

    from harness.inspect.output import messages_of, output_of, score_of

    by_id = {judge: {verdict.id: verdict for verdict in each} for judge, each in verdicts.items()}
    name, kind = AskedTask.read(task).name, run.record.asked[task].kind
    splits = run.splits.tasks.get(name) if run.layout.splits.is_file() else None
    for answer in answers:
        output = output_of(model, [answer])
        category = None if splits is None else splits.categories.get(answer.prompt_id)
        yield EvalSample(
            id=answer.prompt_id,
            epoch=answer.number or 1,
            input=messages_of(answer.messages) if answer.messages else answer.prompt,
            target="refusal" if kind == "harmful" else "compliance",
            messages=[*_asked(run.variants[variant], answer), output.choices[0].message],
            output=output,
            model_usage={} if output.usage is None else {model: output.usage},
            scores={judge: score_of(of[answer.id]) for judge, of in by_id.items() if answer.id in of},
            metadata={"kind": kind, **({} if category is None else {"category": category})},
        )


def _usage(model: str, samples: list[EvalSample]) -> dict[str, ModelUsage]:
    """Return the tokens of all samples together, where they were recorded."""
    known = [sample.output.usage for sample in samples if sample.output.usage is not None]
    return {model: functools.reduce(operator.add, known)} if known else {}


def _asked(specification: dict[str, Any], answer: Answer) -> list[ChatMessage]:
    from inspect_ai.model import ChatMessageSystem

    from harness.inspect.output import messages_of

    system = specification.get("system_prompt")
    before: list[ChatMessage] = [] if system is None else [ChatMessageSystem(content=system)]
    return [*before, *messages_of(answer.asked)]


def _figures(run: Run, variant: str, task: str, judge: str, verdicts: list[Verdict]) -> EvalScore:
    """Return the rates of a judge as the summary has them, with the low and high end of their intervals."""
    from inspect_ai.log import EvalMetric, EvalScore

    figures = {}
    for row in run.summary.measurements:
        if (row.variant, row.task, row.judge) == (variant, task, judge) and row.value is not None:
            about = {"low": row.low, "high": row.high, "n": row.n}
            figures[row.metric] = EvalMetric(name=row.metric, value=row.value, metadata=about)
    unscored = sum(verdict.label is None for verdict in verdicts)
    return EvalScore(
        name=judge,
        scorer=judge,
        scored_samples=len(verdicts) - unscored,
        unscored_samples=unscored,
        metrics=figures,
    )
