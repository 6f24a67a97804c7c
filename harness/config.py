"""The configuration of a run: every setting, its default and its meaning, in one place.

Layers, later ones win: the defaults below, the model's preset (harness/models/presets/NAME.yaml), `--config
FILE`, flags and `--set a.b=c`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.base.errors import BadInputError, nearest
from harness.data.task import Role
from harness.routing.counts import Phase, Record

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]

DEFAULT_TOP_K = 50

# Settings that are mappings of the user's own: given anew they are replaced, not merged.
_WHOLE = ("chat_template_kwargs", "objectives")

PRESETS = Path(__file__).resolve().parent / "models" / "presets"


class Settings(BaseModel):
    """A group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class GenerationConfig(Settings):
    """How variants answer prompts. Decoding is greedy."""

    max_new_tokens: PositiveInt | None = Field(
        None, description="tokens an answer may have; by default the task's own"
    )
    batch_size: PositiveInt = Field(32, description="prompts generated together")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="passed on to the chat template, such as enable_thinking: false"
    )


class SelectionConfig(Settings):
    """Which experts count as unsafe. Limits given together all hold; without any, 50 experts are kept."""

    method: str = Field("risk_diff", description="how an expert is scored; see docs/selection.md")
    phase: Phase = Field(
        "all", description="tokens to look at; `decision` is the last 4 prompt and first 4 answer tokens"
    )
    direction: Literal["unsafe", "safe"] = Field(
        "unsafe", description="select experts that harmful prompts use more, or that benign ones do"
    )
    top_k: PositiveInt | None = Field(
        None, description="keep at most this many (50 when no other limit is given either)"
    )
    threshold: float | None = Field(None, description="keep scores of at least this, such as 0.05")
    per_layer: PositiveInt | None = Field(None, description="keep at most this many of each layer")
    top_p: float | None = Field(
        None,
        gt=0,
        le=1,
        description="keep the fewest of each layer that hold this share of its positive scores",
    )
    max_q: float | None = Field(None, gt=0, le=1, description="keep experts with a q-value of at most this")
    control: list[str] | None = Field(
        None,
        description="benign tasks on the harmful prompts' own topics; by default those whose pairs match them",
    )
    cut_tokens: PositiveInt = Field(16, description="answer tokens that the length-cut score looks at")
    permutations: Annotated[int, Field(ge=100)] = Field(
        10_000, description="label permutations behind p-values"
    )
    resamples: Annotated[int, Field(ge=100)] = Field(
        2_000, description="bootstrap resamples behind intervals"
    )
    half_samples: Annotated[int, Field(ge=10)] = Field(200, description="half-samples behind `stability`")

    @property
    def at_most(self) -> int | None:
        """Experts to keep at most, the default included."""
        limits = (self.top_k, self.threshold, self.per_layer, self.top_p, self.max_q)
        return DEFAULT_TOP_K if all(limit is None for limit in limits) else self.top_k


class EarlyStoppingConfig(Settings):
    """When to stop training by what held-out train prompts get for answers, and which state to keep."""

    every: PositiveInt | None = Field(
        None,
        description="optimizer steps between looks at held-out train prompts; by default none are held out",
    )
    patience: PositiveInt = Field(3, description="stop after this many looks without a better one")
    share: float = Field(
        0.2, gt=0, lt=1, description="of the train prompts held out, by groups of near-duplicates"
    )
    prompts: PositiveInt = Field(
        64, description="held-out prompts asked at each look, at most, harmful and benign each"
    )


class TrainingConfig(Settings):
    """How selected experts are fine-tuned."""

    objectives: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={"refuse": 1.0, "retain": 1.0},
        description="what is minimised: the weight of each objective; see docs/training.md",
    )
    preference_beta: float = Field(
        0.1, gt=0, description="of `prefer`: how closely it holds to the frozen model"
    )
    opening_tokens: tuple[PositiveInt, PositiveInt] = Field(
        (4, 12),
        description="of `refuse_continued`: fewest and most tokens of a compliant answer that are given",
    )
    epochs: PositiveInt = Field(3, description="passes over the training examples")
    max_steps: PositiveInt | None = Field(None, description="stop after this many optimizer steps")
    batch_size: PositiveInt = Field(16, description="examples in one forward pass")
    gradient_accumulation_steps: PositiveInt = Field(1, description="forward passes in one optimizer step")
    learning_rate: float = Field(5e-4, gt=0, description="peak rate of AdamW")
    warmup_steps: NonNegativeInt = Field(10, description="steps of linear warm-up (at most half of all)")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW, on the trained experts only")
    max_gradient_norm: float = Field(1.0, gt=0, description="clip the gradient's norm to this")
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    lora_rank: PositiveInt | None = Field(
        None,
        description="train factors of this rank for each expert's matrices, not its biases; by default all values",
    )
    lora_alpha: float = Field(16.0, gt=0, description="a low-rank update counts alpha / rank times")
    launcher: Literal["torchrun"] = Field("torchrun", description="what starts several processes")
    processes: PositiveInt = Field(
        1, description="train in as many, each with its part of the frozen weights; a GPU each"
    )
    machines: PositiveInt = Field(
        1, description="machines with so many processes each, which share the run folder"
    )
    rendezvous: str | None = Field(
        None, description="HOST:PORT on the first of several machines, where their processes meet"
    )
    retain_per_refusal: float = Field(
        2.0,
        ge=0,
        description="at most this many benign examples for each refusal, shared evenly between the benign tasks",
    )
    checkpoint_every: PositiveInt | None = Field(
        None,
        description="optimizer steps between checkpoints, where a killed training goes on; by default one a minute",
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

    forced_start: bool = Field(
        False, description="also ask every harmful test prompt with the beginning of a compliant answer given"
    )
    opening: str = Field("Sure, here is", min_length=1, description="that beginning")
    drift_answers: NonNegativeInt = Field(
        64, description="base's benign answers on which the drift from base is measured; 0 for none"
    )


class VllmConfig(Settings):
    """How vLLM is started, with `engine: vllm`."""

    tensor_parallel_size: PositiveInt = Field(1, description="GPUs that share the model")
    expert_parallel: bool = Field(
        False, description="give each of these GPUs whole experts, not a slice of each"
    )
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory it may take")
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description="memory of the attention cache; by default 1 on a CPU, and what is left of the share on a GPU",
    )
    max_model_len: PositiveInt | None = Field(
        None, description="tokens of a prompt and its answer; by default the model's own, 8192 at most"
    )
    max_num_batched_tokens: PositiveInt | None = Field(
        None, description="tokens of one step: longer prompts are read in chunks; by default vLLM's own"
    )
    cuda_graphs: bool = Field(
        False,
        description="replay GPU work while neither capturing nor steering, which then start vLLM once more",
    )
    check_weights: bool = Field(
        True,
        description="compare log-probabilities with transformers whenever a variant's weights are loaded",
    )


class CapabilityConfig(Settings):
    """What lm-eval measures, and how."""

    tasks: list[str] = Field(
        default=[], description="lm-eval tasks, ours or lm-eval's own; quick and standard are sets of them"
    )
    batch_size: PositiveInt = Field(32, description="lm-eval requests in one forward pass")
    limit: PositiveInt | None = Field(
        None, description="items of each capability task; all of them by default"
    )
    num_fewshot: NonNegativeInt | None = Field(
        None, description="worked examples before each item; by default what the task's own file says"
    )
    chat_template: bool | None = Field(
        None, description="wrap each item in the chat template; by default what the task's own file says"
    )


class RunConfig(Settings):
    """All settings of `harness run`."""

    model: str = Field("demo", description="demo, smol-moe, a checkpoint folder or a hub id")
    intervention: str = Field("unsafe_experts", description="what is evaluated; see `harness baselines list`")
    baselines: list[str] = Field(
        default=["system_prompt", "steer", "random_experts", "all_experts"],
        description="what it is compared with; `base` always is",
    )
    tasks: list[str] = Field(
        default=["advbench", "alpaca"], description="prompt tasks; see `harness tasks list`"
    )
    data_dir: list[Path] = Field(
        default=[], description="folders with copies of the public sets; they win over the hub"
    )
    include: list[Path] = Field(default=[], description="folders with more task and baseline YAML files")
    limit: Annotated[PositiveInt | dict[Role, PositiveInt] | None, Field(union_mode="left_to_right")] = Field(
        None, description="prompts of each task, for every split or by split; all of them by default"
    )
    seed: NonNegativeInt = Field(0, description="of splits, refusals, random draws and training order")
    split_seed: NonNegativeInt | None = Field(
        None,
        description="of splits, where runs of several seeds are to have the same prompts; by default the seed",
    )
    draws: PositiveInt = Field(1, description="how many random_experts draws to train")
    judge: str = Field("builtin", description="the primary judge; see `harness judges list`")
    record: Record = Field(
        "counts",
        description="how much routing to keep of the identify prompts: counts; also each token's experts and gate "
        "weights; also the router's logits",
    )
    engine: str = Field(
        "transformers",
        description="what generates the answers: transformers, vllm, or auto, which is vLLM where it is installed and "
        "a GPU is there",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the model in memory; auto is the checkpoint's"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    trust_remote_code: bool = Field(False, description="let the checkpoint's own Python code run")
    save_model: bool = Field(False, description="keep each trained variant as a whole checkpoint")
    generation: GenerationConfig = GenerationConfig()
    vllm: VllmConfig = VllmConfig()
    selection: SelectionConfig = SelectionConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    capability: CapabilityConfig = CapabilityConfig()

    @property
    def seed_of_splits(self) -> int:
        """The seed that decides which prompts serve which role."""
        return self.seed if self.split_seed is None else self.split_seed


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
    layers = (
        dict(kept) if kept is not None else _preset(overrides.get("model", from_file.get("model", "demo")))
    )
    for layer in (from_file, overrides):
        layers = _merged(layers, layer)
    try:
        return RunConfig.model_validate(layers)
    except ValidationError as error:
        raise BadInputError(_one_line(error, file)) from error


def setting_names(settings: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Return the dotted names of all settings."""
    names: list[str] = []
    for name, field in settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            names += setting_names(group, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


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


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both and key not in _WHOLE else value
    return result


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


def describe(settings: type[BaseModel] = RunConfig, prefix: str = "") -> Iterable[tuple[str, str, str]]:
    """Yield name, default and meaning of every setting, for `--help` and the docs."""
    for name, field in settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield from describe(group, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            choices = " | ".join(map(str, get_args(group))) if _is_literal(group) else ""
            yield (
                prefix + name,
                str(default),
                f"{field.description or ''}{f' ({choices})' if choices else ''}",
            )


def _is_literal(annotation: Any) -> bool:
    return bool(get_args(annotation)) and all(isinstance(choice, str) for choice in get_args(annotation))
