"""`harness run`, and its steps one at a time: `capture`, `select`, `train`, `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

import typer

from harness.base.errors import BadInputError

if TYPE_CHECKING:
    from harness.runs.summary import Summary

# Flags that are a setting of their own: parameter name to the dotted name in RunConfig.
_SETTINGS = {
    "model": "model",
    "intervention": "intervention",
    "tasks": "tasks",
    "baselines": "baselines",
    "capability": "capability.tasks",
    "capability_limit": "capability.limit",
    "draws": "draws",
    "data_dir": "data_dir",
    "include": "include",
    "limit": "limit",
    "seed": "seed",
    "engine": "engine",
    "judge": "judge",
    "record": "record",
    "method": "selection.method",
    "phase": "selection.phase",
    "direction": "selection.direction",
    "top_k": "selection.top_k",
    "threshold": "selection.threshold",
    "per_layer": "selection.per_layer",
    "top_p": "selection.top_p",
    "max_q": "selection.max_q",
    "control": "selection.control",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "warmup_steps": "training.warmup_steps",
    "gradient_accumulation_steps": "training.gradient_accumulation_steps",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "forced_start": "evaluation.forced_start",
    "launcher": "training.launcher",
    "processes": "training.processes",
    "max_new_tokens": "generation.max_new_tokens",
    "dtype": "dtype",
    "device": "device",
    "save_model": "save_model",
    "trust_remote_code": "trust_remote_code",
}
_LISTS = ("tasks", "baselines", "capability", "control")

_HELP = {
    "run": "The main job: find the unsafe experts, fine-tune only those, evaluate beside baselines, report.",
    "capture": "Answer the identify prompts and count which experts they use.",
    "select": "Score the experts and select the unsafe ones (captures first, if need be).",
    "train": "Fine-tune the experts of each trained variant (captures and selects first, if need be).",
    "evaluate": "Answer the test prompts, judge, run lm-eval, summarise and report (does what is missing first).",
}


def add_commands(app: typer.Typer) -> None:
    """Register `run` and its steps; all take the same options."""
    for name, help_text in _HELP.items():
        app.command(name, help=help_text)(_command)


def _group(title: str, *names: str, help_text: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=title, show_default=False, **more)


_WHAT, _HOW = "What to run", "How"
_CHOICE, _TUNING = "Selection of experts", "Training"


def _of_a_step(context: typer.Context, folder: Path | None) -> Path | None:
    """Take a run folder as an argument where there is one already: `run` itself makes it."""
    if folder is not None and context.info_name == "run":
        raise typer.BadParameter(f"unexpected '{folder}': name the run folder with --output")
    return folder


def _command(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="Run folder, the same as --output.", callback=_of_a_step, hidden=True
        ),
    ] = None,
    model: Annotated[
        str | None, _group(_WHAT, "--model", "-m", help_text="demo, smol-moe, a folder or a hub id. [demo]")
    ] = None,
    intervention: Annotated[
        str | None, _group(_WHAT, "--intervention", help_text="What to evaluate. [unsafe_experts]")
    ] = None,
    tasks: Annotated[
        list[str] | None, _group(_WHAT, "--tasks", help_text="Prompt tasks, comma-separated.")
    ] = None,
    baselines: Annotated[
        list[str] | None,
        _group(_WHAT, "--baselines", help_text="What to compare with, comma-separated, or none."),
    ] = None,
    capability: Annotated[
        list[str] | None, _group(_WHAT, "--capability", help_text="lm-eval tasks, comma-separated, or none.")
    ] = None,
    capability_limit: Annotated[
        int | None, _group(_WHAT, "--capability-limit", help_text="Items of each lm-eval task. [all]")
    ] = None,
    draws: Annotated[
        int | None, _group(_WHAT, "--draws", help_text="Random-expert draws to train. [1]")
    ] = None,
    data_dir: Annotated[
        list[Path] | None,
        _group(_WHAT, "--data-dir", help_text="Folder with public prompt sets; may be repeated."),
    ] = None,
    include: Annotated[
        list[Path] | None,
        _group(_WHAT, "--include", help_text="Folder with more tasks and baselines; may be repeated."),
    ] = None,
    limit: Annotated[
        str | None,
        _group(
            _WHAT, "--limit", help_text="Prompts of each task and split: 100, or identify=50,test=100. [all]"
        ),
    ] = None,
    output: Annotated[
        Path | None, _group(_HOW, "--output", "-o", help_text="Run folder. [runs/MODEL-INTERVENTION-seedN]")
    ] = None,
    config: Annotated[Path | None, _group(_HOW, "--config", help_text="YAML file with settings.")] = None,
    set_: Annotated[
        list[str] | None,
        _group(_HOW, "--set", help_text="Any setting, such as selection.top_k=20; may be repeated."),
    ] = None,
    seed: Annotated[int | None, _group(_HOW, "--seed", help_text="Of every random choice. [0]")] = None,
    engine: Annotated[
        str | None, _group(_HOW, "--engine", help_text="What generates answers. [transformers]")
    ] = None,
    judge: Annotated[
        str | None,
        _group(
            _HOW,
            "--judge",
            help_text="The primary judge; for evaluate on a finished run, one more. [builtin]",
        ),
    ] = None,
    forced_start: Annotated[
        bool | None,
        _group(
            _HOW,
            "--forced-start",
            help_text="Also ask harmful prompts with the beginning of a compliant answer given.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, _group(_HOW, "--max-new-tokens", help_text="Tokens an answer may have. [by task]")
    ] = None,
    dtype: Annotated[
        str | None, _group(_HOW, "--dtype", help_text="auto, float32, bfloat16 or float16.")
    ] = None,
    device: Annotated[str | None, _group(_HOW, "--device", help_text="auto, cpu, cuda or cuda:N.")] = None,
    save_model: Annotated[
        bool | None,
        _group(_HOW, "--save-model", help_text="Keep each trained variant as a whole checkpoint."),
    ] = None,
    trust_remote_code: Annotated[
        bool | None,
        _group(_HOW, "--trust-remote-code", help_text="Let the checkpoint's own Python code run."),
    ] = None,
    dry_run: Annotated[
        bool, _group(_HOW, "--dry-run", help_text="Print what would run, with estimates, and stop.")
    ] = False,
    as_json: Annotated[bool, _group(_HOW, "--json", help_text="Print the result as JSON.")] = False,
    record: Annotated[
        str | None,
        _group(_CHOICE, "--record", help_text="Routing to keep: counts, tokens or logits. [counts]"),
    ] = None,
    method: Annotated[
        str | None, _group(_CHOICE, "--method", help_text="How to score experts. [risk_diff]")
    ] = None,
    phase: Annotated[
        str | None,
        _group(_CHOICE, "--phase", help_text="Tokens to score: prompt, generation, all or decision."),
    ] = None,
    top_k: Annotated[
        int | None, _group(_CHOICE, "--top-k", help_text="Select at most this many experts.")
    ] = None,
    threshold: Annotated[
        float | None, _group(_CHOICE, "--threshold", help_text="Select experts scoring at least this.")
    ] = None,
    per_layer: Annotated[
        int | None, _group(_CHOICE, "--per-layer", help_text="Select at most this many of each layer.")
    ] = None,
    top_p: Annotated[
        float | None,
        _group(_CHOICE, "--top-p", help_text="Select this share of each layer's positive scores."),
    ] = None,
    max_q: Annotated[
        float | None, _group(_CHOICE, "--max-q", help_text="Select experts with at most this q-value.")
    ] = None,
    direction: Annotated[
        str | None, _group(_CHOICE, "--direction", help_text="unsafe or safe: whose experts. [unsafe]")
    ] = None,
    control: Annotated[
        list[str] | None,
        _group(_CHOICE, "--control", help_text="Benign tasks on the harmful topics, or none. [those paired]"),
    ] = None,
    objectives: Annotated[
        str | None,
        _group(
            _TUNING,
            "--objectives",
            help_text="What to minimise, with weights: refuse=1,retain_kl=0.5. [refuse=1,retain=1]",
        ),
    ] = None,
    epochs: Annotated[
        int | None, _group(_TUNING, "--epochs", "--num-epochs", help_text="Passes over the examples.")
    ] = None,
    batch_size: Annotated[
        int | None, _group(_TUNING, "--batch-size", help_text="Examples a forward pass.")
    ] = None,
    learning_rate: Annotated[
        float | None, _group(_TUNING, "--learning-rate", help_text="Peak learning rate.")
    ] = None,
    warmup_steps: Annotated[
        int | None, _group(_TUNING, "--warmup-steps", help_text="Steps of linear warm-up.")
    ] = None,
    gradient_accumulation_steps: Annotated[
        int | None,
        _group(_TUNING, "--gradient-accumulation-steps", help_text="Forward passes an optimizer step."),
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        _group(_TUNING, "--gradient-checkpointing", help_text="Recompute activations to save memory."),
    ] = None,
    launcher: Annotated[
        str | None, _group(_TUNING, "--launcher", help_text="What starts several processes. [torchrun]")
    ] = None,
    processes: Annotated[
        int | None,
        _group(_TUNING, "--processes", help_text="Train in as many processes, on a GPU each. [1]"),
    ] = None,
) -> int:
    given = {name: value for name, value in locals().items() if name in _SETTINGS and value is not None}
    flags = {_SETTINGS[name]: _items(value) if name in _LISTS else value for name, value in given.items()}
    if limit is not None:
        flags["limit"] = _limit(limit)
    if objectives is not None:
        flags["training.objectives"] = _weights(objectives)
    if folder is not None and output not in (None, folder):
        raise BadInputError(f"two run folders are named, {folder} and --output {output}: expected one")
    output = output or folder
    if context.info_name == "evaluate" and judge is not None and _is_finished(output):
        if flags.keys() != {"judge"} or config or set_ or dry_run:
            raise BadInputError(
                f"{output} is a finished run: --judge adds a judge to it and takes no other setting"
            )
        return _add_judge(output, judge, as_json)
    return _go(str(context.info_name), flags, config, set_ or [], output, dry_run, as_json)


def _is_finished(run: Path | None) -> TypeGuard[Path]:
    from harness.runs.summary import FILE_NAME

    return run is not None and (run / FILE_NAME).is_file()


def _add_judge(run: Path, judge: str, as_json: bool) -> int:
    from harness.pipeline.judging import judge_again

    _show_summary(judge_again(run, judge), run, as_json)
    return 0


def _items(values: list[str]) -> list[str]:
    """Read a list flag: repeated, comma-separated, or the word none."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _weights(text: str) -> dict[str, float]:
    """Read `refuse=1,retain_kl=0.5`; the configuration checks the numbers, the plan the names."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise BadInputError(
                f"--objectives {text}: expected weights by name, such as refuse=1,retain_kl=0.5"
            )
    return weights


def _limit(text: str) -> int | dict[str, int]:
    """Read `100` or `identify=50,test=100`; the configuration checks the splits' names."""
    try:
        if "=" not in text:
            return int(text)
        return {split.strip(): int(number) for split, number in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise BadInputError(
            f"--limit {text}: expected a number, or numbers by split such as identify=50,test=100"
        ) from None


def _go(
    command: str,
    flags: dict[str, Any],
    config_file: Path | None,
    assignments: list[str],
    output: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    from harness.config import make_config
    from harness.models.load import quiet_transformers
    from harness.pipeline import pipeline
    from harness.pipeline.plan import make_plan

    quiet_transformers()
    # A single step goes on with the settings of the run folder that it is pointed at.
    kept = pipeline.kept_config(output) if command != "run" and output is not None else None
    config = make_config(flags, config_file, assignments, kept)
    target = output or pipeline.default_output(config)
    plan = make_plan(config)
    if dry_run:
        _show_dry_run(plan, target, as_json)
        return 0
    session = pipeline.start(plan, target, goes_on=command not in ("run", "capture"))
    summary = pipeline.run(session, until="evaluate" if command == "run" else command)
    if summary is None:
        typer.echo(json.dumps({"run": str(target)}) if as_json else f"{command}: done, see {target}")
    else:
        _show_summary(summary, target, as_json)
    return 0


def _show_summary(summary: Summary, target: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary.to_json(), ensure_ascii=False))
        return
    from harness.report.terminal import print_report

    print_report(summary)
    typer.echo(f"\nReport: {target / 'report.html'}")


def _show_dry_run(plan: Any, target: Path, as_json: bool) -> None:
    from harness.pipeline.estimate import estimate, print_estimate

    found = estimate(plan, target)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_estimate(found)
