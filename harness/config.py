"""The configuration of a run: every setting, its default, its meaning and what it decides, in one place.

Layers, later ones win: the defaults below, the model's preset (harness/models/presets/NAME.yaml), `--config
FILE`, flags and `--set a.b=c`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, field_validator

from harness.base.errors import BadInputError, nearest
from harness.base.settings import Settings, setting
from harness.data.task import Role
from harness.routing.phases import Phase, Record

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]

DEFAULT_TOP_K = 50

PRESETS = Path(__file__).resolve().parent / "models" / "presets"

# Headings of `--help`.
_WHAT, _HOW = "What to run", "How"
_CHOICE, _TUNING = "Selection of experts", "Training"

# Settings that earlier versions had and nothing read: a run of theirs goes on without them.
_GONE = ("training.launcher",)


class GenerationConfig(Settings):
    """How variants answer prompts. Decoding is greedy."""

    max_new_tokens: PositiveInt | None = setting(
        None,
        "tokens an answer may have; by default the task's own",
        decides="answers",
        flag="--max-new-tokens",
        panel=_HOW,
        brief="Tokens an answer may have. [by task]",
    )
    batch_size: PositiveInt = setting(32, "prompts generated together", decides="answers")
    chat_template_kwargs: dict[str, Any] = setting(
        {},
        "passed on to the chat template, such as enable_thinking: false",
        decides="answers",
        whole=True,
    )


class SelectionConfig(Settings):
    """Which experts count as unsafe. Limits given together all hold; without any, 50 experts are kept."""

    method: str = setting(
        "risk_diff",
        "how an expert is scored; see docs/selection.md",
        decides="experts",
        flag="--method",
        panel=_CHOICE,
        brief="How to score experts. [{default}]",
    )
    phase: Phase = setting(
        "all",
        "tokens to look at; `decision` is the last 4 prompt and first 4 answer tokens",
        decides="experts",
        flag="--phase",
        panel=_CHOICE,
        brief="Tokens to score: prompt, generation, all or decision.",
    )
    top_k: PositiveInt | None = setting(
        None,
        "keep at most this many (50 when no other limit is given either)",
        decides=("table", "experts"),
        flag="--top-k",
        panel=_CHOICE,
        brief="Select at most this many experts.",
    )
    threshold: float | None = setting(
        None,
        "keep scores of at least this, such as 0.05",
        decides="experts",
        flag="--threshold",
        panel=_CHOICE,
        brief="Select experts scoring at least this.",
    )
    per_layer: PositiveInt | None = setting(
        None, "select at most this many of each layer", decides="experts", flag="--per-layer", panel=_CHOICE
    )
    top_p: float | None = setting(
        None,
        "keep the fewest of each layer that hold this share of its positive scores",
        decides="experts",
        flag="--top-p",
        panel=_CHOICE,
        brief="Select this share of each layer's positive scores.",
        gt=0,
        le=1,
    )
    max_q: float | None = setting(
        None,
        "select experts with at most this q-value",
        decides="experts",
        flag="--max-q",
        panel=_CHOICE,
        gt=0,
        le=1,
    )
    direction: Literal["unsafe", "safe"] = setting(
        "unsafe",
        "select experts that harmful prompts use more, or that benign ones do",
        decides=("table", "experts"),
        flag="--direction",
        panel=_CHOICE,
        brief="unsafe or safe: whose experts. [{default}]",
    )
    control: list[str] | None = setting(
        None,
        "benign tasks on the harmful prompts' own topics; by default those whose pairs match them",
        decides=("table", "experts"),
        flag="--control",
        panel=_CHOICE,
        brief="Benign tasks on the harmful topics, or none. [those paired]",
    )
    cut_tokens: PositiveInt = setting(
        16, "answer tokens that the length-cut score looks at", decides=("table", "experts")
    )
    permutations: Annotated[int, Field(ge=100)] = setting(
        10_000, "label permutations behind p-values", decides=("table", "experts")
    )
    resamples: Annotated[int, Field(ge=100)] = setting(
        2_000, "bootstrap resamples behind intervals", decides="table"
    )
    half_samples: Annotated[int, Field(ge=10)] = setting(
        200, "half-samples behind `stability`", decides="table"
    )

    @property
    def at_most(self) -> int | None:
        """Experts to keep at most, the default included."""
        limits = (self.top_k, self.threshold, self.per_layer, self.top_p, self.max_q)
        return DEFAULT_TOP_K if all(limit is None for limit in limits) else self.top_k

    def effective(self) -> dict[str, Any]:
        """Return the number of experts, which other limits may leave open."""
        return {"top_k": self.at_most}


class EarlyStoppingConfig(Settings):
    """When to stop training by what held-out train prompts get for answers, and which state to keep."""

    every: PositiveInt | None = setting(
        None,
        "optimizer steps between looks at held-out train prompts; by default none are held out",
        decides="training",
    )
    patience: PositiveInt = setting(3, "stop after this many looks without a better one", decides="training")
    share: float = setting(
        0.2,
        "of the train prompts held out, by groups of near-duplicates",
        decides="training",
        gt=0,
        lt=1,
    )
    prompts: PositiveInt = setting(
        64, "held-out prompts asked at each look, at most, harmful and benign each", decides="training"
    )


class TrainingConfig(Settings):
    """How selected experts are fine-tuned."""

    objectives: dict[str, Annotated[float, Field(gt=0)]] = setting(
        {"refuse": 1.0, "retain": 1.0},
        "what is minimised: the weight of each objective; see docs/training.md",
        decides="training",
        whole=True,
        flag="--objectives",
        panel=_TUNING,
        brief="What to minimise, with weights: refuse=1,retain_kl=0.5. [refuse=1,retain=1]",
    )
    preference_beta: float = setting(
        0.1, "of `prefer`: how closely it holds to the frozen model", decides="training", gt=0
    )
    opening_tokens: tuple[PositiveInt, PositiveInt] = setting(
        (4, 12),
        "of `refuse_continued`: fewest and most tokens of a compliant answer that are given",
        decides="training",
    )
    epochs: PositiveInt = setting(
        3,
        "passes over the training examples",
        decides="training",
        flag=("--epochs", "--num-epochs"),
        panel=_TUNING,
        brief="Passes over the examples.",
    )
    max_steps: PositiveInt | None = setting(None, "stop after this many optimizer steps", decides="training")
    batch_size: PositiveInt = setting(
        16,
        "examples in one forward pass",
        decides="training",
        flag="--batch-size",
        panel=_TUNING,
        brief="Examples a forward pass.",
    )
    learning_rate: float = setting(
        5e-4,
        "peak rate of AdamW",
        decides="training",
        flag="--learning-rate",
        panel=_TUNING,
        brief="Peak learning rate.",
        gt=0,
    )
    warmup_steps: NonNegativeInt = setting(
        10,
        "steps of linear warm-up (at most half of all)",
        decides="training",
        flag="--warmup-steps",
        panel=_TUNING,
        brief="Steps of linear warm-up.",
    )
    gradient_accumulation_steps: PositiveInt = setting(
        1,
        "forward passes in one optimizer step",
        decides="training",
        flag="--gradient-accumulation-steps",
        panel=_TUNING,
        brief="Forward passes an optimizer step.",
    )
    weight_decay: float = setting(0.0, "of AdamW, on the trained experts only", decides="training", ge=0)
    max_gradient_norm: float = setting(1.0, "clip the gradient's norm to this", decides="training", gt=0)
    gradient_checkpointing: bool = setting(
        False,
        "recompute activations to save memory",
        decides="training",
        flag="--gradient-checkpointing",
        panel=_TUNING,
    )
    lora_rank: PositiveInt | None = setting(
        None,
        "train factors of this rank for each expert's matrices, not its biases; by default all values",
        decides="training",
    )
    lora_alpha: float = setting(16.0, "a low-rank update counts alpha / rank times", decides="training", gt=0)
    processes: PositiveInt = setting(
        1,
        "train in as many, each with its part of the frozen weights; a GPU each",
        decides="training",
        flag="--processes",
        panel=_TUNING,
        brief="Train in as many processes, on a GPU each. [{default}]",
    )
    machines: PositiveInt = setting(
        1, "machines with so many processes each, which share the run folder", decides="training"
    )
    rendezvous: str | None = setting(
        None,
        "HOST:PORT on the first of several machines, where their processes meet",
        decides="nothing",
    )
    retain_per_refusal: float = setting(
        2.0,
        "at most this many benign examples for each refusal, shared evenly between the benign tasks",
        decides="training",
        ge=0,
    )
    checkpoint_every: PositiveInt | None = setting(
        None,
        "optimizer steps between checkpoints, where a killed training goes on; by default one a minute",
        decides="nothing",
    )
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()

    @field_validator("opening_tokens")
    @classmethod
    def _in_order(cls, opening_tokens: tuple[int, int]) -> tuple[int, int]:
        if opening_tokens[0] > opening_tokens[1]:
            raise ValueError("expected the fewest first, then the most, such as [4, 12]")
        return opening_tokens

    @property
    def world_size(self) -> int:
        """Processes that train together, on all machines."""
        return self.processes * self.machines


class EvaluationConfig(Settings):
    """What variants are asked beside the tasks' own test prompts."""

    forced_start: bool = setting(
        False,
        "also ask every harmful test prompt with the beginning of a compliant answer given",
        decides="prompts",
        flag="--forced-start",
        panel=_HOW,
        brief="Also ask harmful prompts with the beginning of a compliant answer given.",
    )
    opening: str = setting("Sure, here is", "that beginning", decides="prompts", min_length=1)
    drift_answers: NonNegativeInt = setting(
        64,
        "base's benign answers on which the drift from base is measured; 0 for none",
        decides="measures",
    )


class VllmConfig(Settings):
    """How vLLM is started, with `engine: vllm`."""

    tensor_parallel_size: PositiveInt = setting(1, "GPUs that share the model", decides="answers")
    expert_parallel: bool = setting(
        False, "give each of these GPUs whole experts, not a slice of each", decides="answers"
    )
    gpu_memory_utilization: float = setting(
        0.9, "share of a GPU's memory it may take", decides="nothing", gt=0, le=1
    )
    kv_cache_gib: float | None = setting(
        None,
        "memory of the attention cache; by default 1 on a CPU, and what is left of the share on a GPU",
        decides="answers",
        gt=0,
    )
    max_model_len: PositiveInt | None = setting(
        None, "tokens of a prompt and its answer; by default the model's own, 8192 at most", decides="answers"
    )
    max_num_batched_tokens: PositiveInt | None = setting(
        None,
        "tokens of one step: longer prompts are read in chunks; by default vLLM's own",
        decides="answers",
    )
    cuda_graphs: bool = setting(
        False,
        "replay GPU work while neither capturing nor steering, which then start vLLM once more",
        decides="answers",
    )
    check_weights: bool = setting(
        True,
        "compare log-probabilities with transformers whenever a variant's weights are loaded",
        decides="nothing",
    )


class CapabilityConfig(Settings):
    """What lm-eval measures, and how."""

    tasks: list[str] = setting(
        [],
        "lm-eval tasks, ours or lm-eval's own; quick and standard are sets of them",
        decides="measures",
        flag="--capability",
        panel=_WHAT,
        brief="lm-eval tasks, comma-separated, or none.",
    )
    batch_size: PositiveInt = setting(32, "lm-eval requests in one forward pass", decides="measures")
    limit: PositiveInt | None = setting(
        None,
        "items of each capability task; all of them by default",
        decides="measures",
        flag="--capability-limit",
        panel=_WHAT,
        brief="Items of each lm-eval task. [all]",
    )
    num_fewshot: NonNegativeInt | None = setting(
        None,
        "worked examples before each item; by default what the task's own file says",
        decides="measures",
    )
    chat_template: bool | None = setting(
        None,
        "wrap each item in the chat template; by default what the task's own file says",
        decides="measures",
    )


class RunConfig(Settings):
    """All settings of `harness run`."""

    model: str = setting(
        "demo",
        "demo, smol-moe, a checkpoint folder or a hub id",
        decides="answers",
        flag=("--model", "-m"),
        panel=_WHAT,
        brief="demo, smol-moe, a folder or a hub id. [{default}]",
    )
    intervention: str = setting(
        "unsafe_experts",
        "what is evaluated; see `harness baselines list`",
        decides="variants",
        flag="--intervention",
        panel=_WHAT,
        brief="What to evaluate. [{default}]",
    )
    tasks: list[str] = setting(
        ["advbench", "alpaca"],
        "prompt tasks; see `harness tasks list`",
        decides="prompts",
        flag="--tasks",
        panel=_WHAT,
        brief="Prompt tasks, comma-separated.",
    )
    baselines: list[str] = setting(
        ["system_prompt", "steer", "random_experts", "all_experts"],
        "what it is compared with; `base` always is",
        decides="variants",
        flag="--baselines",
        panel=_WHAT,
        brief="What to compare with, comma-separated, or none.",
    )
    capability: CapabilityConfig = CapabilityConfig()
    draws: PositiveInt = setting(
        1,
        "how many random_experts draws to train",
        decides="variants",
        flag="--draws",
        panel=_WHAT,
        brief="Random-expert draws to train. [{default}]",
    )
    data_dir: list[Path] = setting(
        [],
        "folders with copies of the public sets; they win over the hub",
        decides="prompts",
        flag="--data-dir",
        panel=_WHAT,
        brief="Folder with public prompt sets; may be repeated.",
    )
    include: list[Path] = setting(
        [],
        "folders with more task and baseline YAML files",
        decides=("prompts", "variants"),
        flag="--include",
        panel=_WHAT,
        brief="Folder with more tasks and baselines; may be repeated.",
    )
    limit: PositiveInt | dict[Role, PositiveInt] | None = setting(
        None,
        "prompts of each task, for every split or by split; all of them by default",
        decides="prompts",
        flag="--limit",
        panel=_WHAT,
        brief="Prompts of each task and split: 100, or identify=50,test=100. [all]",
        union_mode="left_to_right",
    )
    seed: NonNegativeInt = setting(
        0,
        "of splits, refusals, random draws and training order",
        decides=("table", "training", "variants", "measures"),
        flag="--seed",
        panel=_HOW,
        brief="Of every random choice. [{default}]",
    )
    split_seed: NonNegativeInt | None = setting(
        None,
        "of splits, where runs of several seeds are to have the same prompts; by default the seed",
        decides="prompts",
    )
    engine: str = setting(
        "transformers",
        "what generates the answers: transformers, vllm, or auto, which is vLLM where it is installed and a GPU is "
        "there",
        decides="answers",
        flag="--engine",
        panel=_HOW,
        brief="What generates answers. [{default}]",
    )
    judge: str = setting(
        "builtin",
        "the primary judge; see `harness judges list`",
        decides="measures",
        flag="--judge",
        panel=_HOW,
        brief="The primary judge; for evaluate on a finished run, one more. [{default}]",
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    generation: GenerationConfig = GenerationConfig()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto",
        "of the model in memory; auto is the checkpoint's",
        decides="answers",
        flag="--dtype",
        panel=_HOW,
        brief="auto, float32, bfloat16 or float16.",
    )
    device: str = setting(
        "auto",
        "auto, cpu, cuda or cuda:N",
        decides="answers",
        flag="--device",
        panel=_HOW,
        brief="auto, cpu, cuda or cuda:N.",
    )
    save_model: bool = setting(
        False,
        "keep each trained variant as a whole checkpoint",
        decides="nothing",
        flag="--save-model",
        panel=_HOW,
    )
    trust_remote_code: bool = setting(
        False,
        "let the checkpoint's own Python code run",
        decides="nothing",
        flag="--trust-remote-code",
        panel=_HOW,
    )
    vllm: VllmConfig = VllmConfig()
    record: Record = setting(
        "counts",
        "how much routing to keep of the identify prompts: counts; also each token's experts and gate weights; also "
        "the router's logits",
        decides="measures",
        flag="--record",
        panel=_CHOICE,
        brief="Routing to keep: counts, tokens or logits. [{default}]",
    )
    selection: SelectionConfig = SelectionConfig()
    training: TrainingConfig = TrainingConfig()

    @property
    def seed_of_splits(self) -> int:
        """The seed that decides which prompts serve which role."""
        return self.seed if self.split_seed is None else self.split_seed

    def effective(self) -> dict[str, Any]:
        """Return the seed of splits, which may be left to the seed."""
        return {"split_seed": self.seed_of_splits}


def preset_names() -> list[str]:
    """Return the models that have recommended settings."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def make_config(
    flags: Mapping[str, Any],
    file: Path | None = None,
    assignments: Sequence[str] = (),
    kept: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merge all layers into one configuration.

    Args:
        flags: what the command line set, dotted names allowed.
        file: a YAML or JSON file with the same structure as RunConfig.
        assignments: `a.b=c` strings of `--set`; the value is read as YAML.
        kept: the configuration of an earlier run, in place of the model's preset.

    Raises:
        BadInputError: a key is unknown (the nearest is offered) or a value does not fit.
    """
    from_file = _read_file(file) if file else {}
    overrides: dict[str, Any] = {}
    for key, value in flags.items():
        _assign(overrides, key, value)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise BadInputError(f"--set {assignment}: expected KEY=VALUE, such as selection.top_k=20")
        _check_key(key, f"--set {assignment}")
        _assign(overrides, key, _yaml_value(text, assignment))
    if kept is not None:
        layers = _without_gone(kept)
    else:
        layers = _preset(overrides.get("model", from_file.get("model", "demo")))
    whole = whole_settings()
    for layer in (from_file, overrides):
        layers = _merged(layers, layer, whole)
    try:
        return RunConfig.model_validate(layers)
    except ValidationError as error:
        raise BadInputError(_one_line(error, file)) from error


def setting_names() -> list[str]:
    """Return the dotted names of all settings."""
    return [each.name for each in RunConfig.declared()]


def whole_settings() -> frozenset[str]:
    """Return the dotted names of mappings that are one value: replaced when given anew, and shown as one."""
    return frozenset(each.name for each in RunConfig.declared() if each.whole)


def _preset(model: str) -> dict[str, Any]:
    path = PRESETS / f"{model}.yaml"
    return _read_file(path) if path.is_file() else {}


def _check_key(key: str, where: str) -> None:
    known = setting_names()
    if key not in known and not key.startswith("generation.chat_template_kwargs."):
        raise BadInputError(f"{where}: unknown setting '{key}', {nearest(key, known)}")


def _assign(target: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        target = target.setdefault(part, {})
    target[last] = value


def _merged(
    below: Mapping[str, Any], above: Mapping[str, Any], whole: frozenset[str], prefix: str = ""
) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        name = f"{prefix}{key}"
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        merges = both and name not in whole
        result[key] = _merged(result[key], value, whole, f"{name}.") if merges else value
    return result


def _without_gone(kept: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without_gone(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in kept.items()
        if f"{prefix}{key}" not in _GONE
    }


def _yaml_value(text: str, assignment: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInputError(f"--set {assignment}: the value is not YAML") from error


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"configuration {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadInputError(f"configuration {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadInputError(f"configuration {path}: expected settings by name, such as `limit: 100`")
    return content


def _one_line(error: ValidationError, file: Path | None) -> str:
    """Say what is wrong with the first setting that does not fit."""
    # Of a setting that may be one of several things, the deepest error says most.
    first = max(error.errors(include_url=False), key=lambda item: len(item["loc"]))
    key = ".".join(str(part) for part in first["loc"] if str(part).replace("_", "").isalnum())
    where = f"{file}: " if file else ""
    if first["type"] == "extra_forbidden":
        return f"{where}unknown setting '{key}', {nearest(key, setting_names())}"
    return f"{where}setting {key} = {first['input']!r}: {_lower(first['msg'])}"


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def describe() -> Iterable[tuple[str, str, str]]:
    """Yield name, default and meaning of every setting, for the docs."""
    for each in RunConfig.declared():
        choices = " | ".join(choices_of(each.annotation))
        yield each.name, str(each.default), f"{each.help}{f' ({choices})' if choices else ''}"


def choices_of(annotation: Any) -> list[str]:
    """Return the values of a setting that takes one of a few words; none for others."""
    choices = list(get_args(annotation))
    return choices if all(isinstance(choice, str) for choice in choices) else []
