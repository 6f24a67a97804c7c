"""The configuration of a run: every setting, its default, its meaning and what it decides, in one place.

Layers, later ones win: the defaults below, the model's preset (harness/models/presets/NAME.yaml), `--config
FILE`, flags and `--set a.b=c`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator

from harness.base.documents import parse_yaml
from harness.base.errors import BadInputError
from harness.base.files import at_home, read_mapping
from harness.base.schema import explain
from harness.base.settings import Settings, setting
from harness.data.task import Role
from harness.routing.phases import Phase, Record

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
AtLeast10 = Annotated[int, Field(ge=10)]
AtLeast100 = Annotated[int, Field(ge=100)]
Margin = Annotated[float, Field(gt=0, lt=1)]
Weight = Annotated[float, Field(gt=0)]

DEFAULT_TOP_K = 50

PRESETS = Path(__file__).resolve().parent / "models" / "presets"

# Headings of `--help`, in its order.
WHAT, HOW, SELECTION, TRAINING = "What to run", "How", "Selection of experts", "Training"

# Settings of training that earlier versions had and nothing read: their runs can be continued.
_GONE = ("launcher",)


class GenerationConfig(Settings):
    """How variants answer prompts. Decoding is greedy unless `answers` is given."""

    panel: ClassVar = HOW

    max_new_tokens: PositiveInt | None = setting(None, decides="answers", flag="--max-new-tokens")
    """Tokens an answer may have; by default the task's own."""
    batch_size: PositiveInt = setting(32, decides="answers")
    """Answers generated together."""
    answers: PositiveInt | None = setting(None, decides="measures", flag="--answers")
    """Sampled answers per test prompt; by default one greedy answer."""
    temperature: float | None = setting(None, decides="measures", flag="--temperature", gt=0)
    """Temperature of sampled answers; 1 where it is left open."""
    top_p: float | None = setting(None, decides="measures", flag="--top-p", gt=0, le=1)
    """Sample from the fewest tokens that hold this share of the probability; from all where it is left open."""
    chat_template_kwargs: dict[str, Any] = setting({}, decides="answers", whole=True)
    """Passed on to the chat template, such as enable_thinking: false."""
    thinking: Literal["auto", "off", "on"] = setting("auto", decides="answers", flag="--thinking")
    """Whether a model thinks before it answers; auto switches that off where the chat template can."""
    reasoning_tokens: NonNegativeInt = setting(1024, decides="answers", flag="--reasoning-tokens")
    """Tokens within which an answer must begin where a model thinks, beside the answer's own."""
    follow: list[str] = setting([], decides="answers")
    """Generation settings of the checkpoint to follow, such as repetition_penalty; by default none."""


class SelectionConfig(Settings):
    """Which experts count as unsafe. Limits given together all hold; without any, 50 experts are kept."""

    panel: ClassVar = SELECTION

    method: str = setting("risk_diff", decides="experts", flag="--method")
    """How to score experts; see docs/selection.md."""
    phase: Phase = setting("all", decides="experts", flag="--phase")
    """Tokens to score; `decision` is the last 4 before the answer and its first 4."""
    top_k: PositiveInt | None = setting(None, decides=("table", "experts"), flag="--top-k")
    """Select at most this many experts (50 when no other limit is given either)."""
    threshold: float | None = setting(None, decides="experts", flag="--threshold")
    """Select experts that score at least this, such as 0.05."""
    per_layer: PositiveInt | None = setting(None, decides="experts", flag="--per-layer")
    """Select at most this many experts per layer."""
    top_p: float | None = setting(None, decides="experts", flag="--per-layer-share", gt=0, le=1)
    """Select the fewest experts of each layer that hold this share of its positive scores."""
    max_q: float | None = setting(None, decides="experts", flag="--max-q", gt=0, le=1)
    """Select experts with at most this q-value."""
    direction: Literal["unsafe", "safe"] = setting("unsafe", decides=("table", "experts"), flag="--direction")
    """Select experts that harmful prompts use more, or that benign ones do."""
    control: list[str] | None = setting(None, decides=("table", "experts"), flag="--control")
    """Benign tasks on the topics of the harmful prompts; by default those whose pairs match them."""
    cut_tokens: PositiveInt = setting(16, decides=("table", "experts"))
    """Answer tokens that the length-cut score looks at."""
    permutations: AtLeast100 = setting(10_000, decides=("table", "experts"))
    """Label permutations behind p-values."""
    resamples: AtLeast100 = setting(2_000, decides="table")
    """Bootstrap resamples behind intervals."""
    half_samples: AtLeast10 = setting(200, decides="table")
    """Half-samples behind `stability`."""

    @property
    def at_most(self) -> int | None:
        """Experts to keep at most, the default included."""
        limits = (self.top_k, self.threshold, self.per_layer, self.top_p, self.max_q)
        return DEFAULT_TOP_K if all(limit is None for limit in limits) else self.top_k

    def effective(self) -> dict[str, Any]:
        """Return the number of experts, which other limits may leave open."""
        return {"top_k": self.at_most}


class EarlyStoppingConfig(Settings):
    """When to stop training by the answers to held-out train prompts, and which state to keep."""

    every: PositiveInt | None = setting(None, decides="training")
    """Optimizer steps between looks at held-out train prompts; by default none are held out."""
    patience: PositiveInt = setting(3, decides="training")
    """Stop after this many looks without a better one."""
    share: float = setting(0.2, decides="training", gt=0, lt=1)
    """Share of the train prompts held out, by groups of near-duplicates."""
    prompts: PositiveInt = setting(64, decides="training")
    """Held-out prompts asked at each look, at most, harmful and benign each."""


class TrainingConfig(Settings):
    """How selected experts are fine-tuned."""

    panel: ClassVar = TRAINING

    objectives: dict[str, Weight] = setting(
        {"refuse": 1.0, "retain": 1.0}, decides="training", whole=True, flag="--objectives"
    )
    """What to minimise: the weight of each objective, such as refuse=1,retain_kl=0.5; see docs/training.md."""
    preference_beta: float = setting(0.1, decides="training", gt=0)
    """How closely `prefer` holds to the frozen model."""
    opening_tokens: tuple[PositiveInt, PositiveInt] = setting((4, 12), decides="training")
    """Fewest and most tokens of a compliant answer that `refuse_continued` gives."""
    refusal_thought: bool = setting(False, decides="training")
    """Put a short thought before each refusal, for models that always think; see docs/training.md."""
    epochs: PositiveInt = setting(3, decides="training", flag=("--epochs", "--num-epochs"))
    """Passes over the training examples."""
    max_steps: PositiveInt | None = setting(None, decides="training")
    """Stop after this many optimizer steps."""
    batch_size: PositiveInt = setting(16, decides="training", flag="--batch-size")
    """Examples per forward pass."""
    learning_rate: float = setting(5e-4, decides="training", flag="--learning-rate", gt=0)
    """Peak learning rate of AdamW."""
    warmup_steps: NonNegativeInt = setting(10, decides="training", flag="--warmup-steps")
    """Steps of linear warm-up (at most half of all)."""
    gradient_accumulation_steps: PositiveInt = setting(
        1, decides="training", flag="--gradient-accumulation-steps"
    )
    """Forward passes per optimizer step."""
    weight_decay: float = setting(0.0, decides="training", ge=0)
    """Weight decay of AdamW, on the trained experts only."""
    max_gradient_norm: float = setting(1.0, decides="training", gt=0)
    """Clip the gradient's norm to this."""
    gradient_checkpointing: bool = setting(False, decides="training", flag="--gradient-checkpointing")
    """Recompute activations to save memory."""
    lora_rank: PositiveInt | None = setting(None, decides="training")
    """Train factors of this rank for each expert's matrices, not its biases; by default all values."""
    lora_alpha: float = setting(16.0, decides="training", gt=0)
    """A low-rank update counts alpha / rank times."""
    processes: PositiveInt = setting(1, decides="training", flag="--processes")
    """Train in this many processes, each on a GPU of its own with its part of the frozen weights."""
    machines: PositiveInt = setting(1, decides="training")
    """Machines with so many processes each, which share the run folder."""
    rendezvous: str | None = setting(None, decides="nothing")
    """HOST:PORT on the first of several machines, where their processes meet."""
    retain_per_refusal: float = setting(2.0, decides="training", ge=0)
    """Benign examples per refusal, at most, shared evenly between the benign tasks."""
    checkpoint_every: PositiveInt | None = setting(None, decides="nothing")
    """Optimizer steps between checkpoints, where a killed training resumes; by default one per minute."""
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

    panel: ClassVar = HOW

    forced_start: bool = setting(False, decides="prompts", flag="--forced-start")
    """Also ask every harmful test prompt with the beginning of a compliant answer given."""
    opening: str = setting("Sure, here is", decides="prompts", min_length=1)
    """That beginning."""
    drift_answers: NonNegativeInt = setting(64, decides="measures")
    """Base's answers to each kind of prompt on which the drift from base is measured; 0 for none."""


class VllmConfig(Settings):
    """How vLLM is started, with `engine: vllm`."""

    tensor_parallel_size: PositiveInt = setting(1, decides="answers")
    """GPUs that share the model."""
    expert_parallel: bool = setting(False, decides="answers")
    """Give each of these GPUs whole experts, not a slice of each."""
    gpu_memory_utilization: float = setting(0.9, decides="nothing", gt=0, le=1)
    """Share of a GPU's memory it may take."""
    kv_cache_gib: float | None = setting(None, decides="answers", gt=0)
    """Memory of the attention cache; by default 1 on a CPU, and what is left of the share on a GPU."""
    max_model_len: PositiveInt | None = setting(None, decides="answers")
    """Tokens of a prompt and its answer; by default the model's own, 8192 at most."""
    max_num_batched_tokens: PositiveInt | None = setting(None, decides="answers")
    """Tokens per step: longer prompts are read in chunks; by default vLLM's own."""
    cuda_graphs: bool = setting(False, decides="answers")
    """Replay GPU work while neither capturing nor steering, which then start vLLM once more."""
    check_weights: bool = setting(True, decides="nothing")
    """Compare log-probabilities with transformers whenever a variant's weights are loaded."""


class CapabilityConfig(Settings):
    """What lm-eval measures, and how."""

    panel: ClassVar = WHAT

    tasks: list[str] = setting([], decides="measures", flag="--capability")
    """Tasks of lm-eval, ours or lm-eval's own; quick and standard are sets of them."""
    batch_size: PositiveInt = setting(32, decides="measures")
    """Requests of lm-eval per forward pass."""
    limit: PositiveInt | None = setting(None, decides="measures", flag="--capability-limit")
    """Items of each capability task; by default all."""
    num_fewshot: NonNegativeInt | None = setting(None, decides="measures")
    """Worked examples before each item; by default as the task's own file says."""
    chat_template: bool | None = setting(None, decides="measures")
    """Wrap each item in the chat template; by default as the task's own file says."""


class MarginsConfig(Settings):
    """The losses that do not matter, declared beforehand: a cost is shown where a larger one is ruled out."""

    panel: ClassVar = HOW

    false_refusal: float = setting(0.05, decides="nothing", gt=0, lt=1)
    """A rise of false refusal on a benign task, as a fraction of 1."""
    capability: float = setting(0.02, decides="nothing", gt=0, lt=1)
    """A loss of capability on an lm-eval task, as a fraction of 1."""
    by_task: dict[str, Margin] = setting({}, decides="nothing", whole=True)
    """Margins of single tasks, prompt tasks or lm-eval tasks, in place of these."""

    def of(self, task: str | None, kind: str) -> float | None:
        """Return the margin of a figure; None where it is no cost."""
        margins = {"benign": self.false_refusal, "capability": self.capability}
        return self.by_task.get(str(task), margins[kind]) if kind in margins else None


class ClaimConfig(Settings):
    """What a claim about choosing experts rests on; declared before the run, and tested over random draws."""

    panel: ClassVar = SELECTION

    figure: str | None = setting(None, decides="nothing")
    """The figure that gains, and the claim about choosing experts, rest on: refusal_rate or harmful_rate; by default
    harmful_rate where a judge of harmfulness reads the answers, else refusal_rate."""
    prompts: PositiveInt | None = setting(None, decides="measures")
    """Test prompts of each harmful task that random draws answer, and nothing else; by default they are evaluated as
    all variants are."""


Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""What every generator of random numbers takes."""


def judge_names(text: str) -> list[str]:
    """Return the judges that a comma-separated list names."""
    return [name.strip() for name in text.split(",") if name.strip()]


class RunConfig(Settings):
    """All settings of `harness run`."""

    panel: ClassVar = WHAT

    model: str = setting("demo", decides="answers", flag=("--model", "-m"))
    """The model: demo or smol-moe, which have presets for other settings, a checkpoint folder or a hub id."""
    intervention: str = setting("unsafe_experts", decides="variants", flag="--intervention")
    """What to evaluate; see `harness baselines list`."""
    tasks: list[str] = setting(["advbench", "alpaca"], decides="prompts", flag="--tasks")
    """Prompt tasks; see `harness tasks list`."""
    variant: str | None = setting(None, decides="variants")
    """What `harness compare` compares with the model, in place of an intervention: a model, or a delta or adapter."""
    baselines: list[str] = setting(
        ["system_prompt", "steer", "random_experts", "all_experts"], decides="variants", flag="--baselines"
    )
    """What to compare with, besides `base`; `zoo` is all published methods (docs/methods.md)."""
    capability: CapabilityConfig = CapabilityConfig()
    draws: PositiveInt = setting(1, decides="variants", flag="--draws")
    """How many draws of random_experts to train."""
    data_dir: list[Path] = setting([], decides="prompts", flag="--data-dir")
    """Folders with copies of the public prompt sets; they win over the hub."""
    include: list[Path] = setting([], decides=("prompts", "variants", "measures"), flag="--include")
    """Folders with more YAML files of tasks, baselines and judges."""
    limit: PositiveInt | dict[Role, PositiveInt] | None = setting(
        None, decides="prompts", flag="--limit", union_mode="left_to_right"
    )
    """Prompts of each task, for every split (100) or by split (identify=50,test=100); by default all."""
    seed: Seed = setting(0, decides=("table", "training", "variants", "measures"), flag="--seed", panel=HOW)
    """Seed of every random choice: splits, refusals, random draws, training order."""
    split_seed: Seed | None = setting(None, decides="prompts")
    """Seed of splits, where runs of several seeds are to have the same prompts; by default the seed."""
    engine: str = setting("transformers", decides="answers", flag="--engine", panel=HOW)
    """What generates answers: transformers, vllm, or auto (vLLM where it is installed and a GPU is there)."""
    judge: str = setting("builtin", decides="measures", flag="--judge", panel=HOW)
    """Judges or their YAML files, comma-separated; the first of a quantity is its primary (of a finished run,
    `evaluate` adds them)."""
    judge_settings: dict[str, dict[str, Any]] = setting({}, decides="measures", panel=HOW)
    """What to change in the files of judges, by judge: `judge_settings.minos.model=FOLDER`."""
    card: Path | None = setting(None, decides="nothing", flag="--card", panel=HOW)
    """The judge's card to show in place of the one that comes with it; see `harness judges evaluate`."""
    evaluation: EvaluationConfig = EvaluationConfig()
    margins: MarginsConfig = MarginsConfig()
    claim: ClaimConfig = ClaimConfig()
    generation: GenerationConfig = GenerationConfig()
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = setting(
        "auto", decides="answers", flag="--dtype", panel=HOW
    )
    """Type of the model's values in memory; auto is the checkpoint's."""
    device: str = setting("auto", decides="answers", flag="--device", panel=HOW)
    """The device for the model: auto, cpu, cuda or cuda:N."""
    save_model: bool = setting(False, decides="nothing", flag="--save-model", panel=HOW)
    """Keep each trained variant as a whole checkpoint."""
    track: str | None = setting(None, decides="nothing", flag="--track", panel=HOW)
    """A tracker that is told settings, losses, figures and report while the run goes on: wandb or trackio."""
    trust_remote_code: bool = setting(False, decides="nothing", flag="--trust-remote-code", panel=HOW)
    """Let the checkpoint's own Python code run where transformers has no class for it."""
    trust_remote_tokenizer: bool = setting(
        False, decides="nothing", flag="--trust-remote-tokenizer", panel=HOW
    )
    """Let the code of the checkpoint's tokenizer run, and no other."""
    vllm: VllmConfig = VllmConfig()
    record: Record = setting("counts", decides="measures", flag="--record", panel=SELECTION)
    """Routing to keep of the identify prompts: counts; also each token's experts and gate weights; also the
    router's logits."""
    selection: SelectionConfig = SelectionConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("judge", mode="before")
    @classmethod
    def _joined(cls, judges: object) -> object:
        if isinstance(judges, list) and all(isinstance(name, str) for name in judges):
            return ",".join(judges)
        return judges

    @property
    def judges(self) -> list[str]:
        """The names of the judges."""
        return judge_names(self.judge)

    @field_validator("data_dir", "include", "card")
    @classmethod
    def _at_home(cls, paths: list[Path] | Path | None) -> list[Path] | Path | None:
        if isinstance(paths, list):
            return [at_home(path) for path in paths]
        return None if paths is None else at_home(paths)

    @field_validator("model")
    @classmethod
    def _model_at_home(cls, model: str) -> str:
        return str(at_home(Path(model))) if model.startswith("~") else model

    @property
    def seed_of_splits(self) -> int:
        """The seed that decides which prompts serve which role."""
        return self.seed if self.split_seed is None else self.split_seed

    def effective(self) -> dict[str, Any]:
        """Return the seed of splits, which may be left to the seed."""
        return {"split_seed": self.seed_of_splits}


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
    from_file = read_mapping(file) if file else {}
    assigned = list(map(_assignment, assignments))
    overrides = _grouped([*flags.items(), *assigned])
    if kept is None:
        preset = PRESETS / f"{overrides.get('model', from_file.get('model', 'demo'))}.yaml"
        origin, below = f"{preset}: ", read_mapping(preset) if preset.is_file() else {}
    else:
        training = kept.get("training", {})
        below = {**kept, "training": {name: training[name] for name in training if name not in _GONE}}
        origin = "settings of the run: "
    # Each by itself first, so that a mistake is said of the layer that has it.
    _checked(below, origin)
    _checked(from_file, f"{file}: ")
    _checked(_grouped(flags.items()), "")
    _checked(_grouped(assigned), "--set ")
    return _checked(_merged(_merged(below, from_file), overrides), "")


def setting_names() -> list[str]:
    """Return the dotted names of all settings."""
    return [each.name for each in RunConfig.declared()]


@cache
def whole_settings() -> frozenset[str]:
    """Return the dotted names of mappings that are one value: replaced when given anew, and shown as one."""
    return frozenset(each.name for each in RunConfig.declared() if each.whole)


def _assignment(text: str) -> tuple[str, Any]:
    """Read the setting and the value of a `--set`."""
    key, equals, value = text.partition("=")
    if not equals:
        raise BadInputError(f"--set {text}: expected KEY=VALUE, such as selection.top_k=20")
    known = setting_names()
    if key not in known and not key.startswith(("generation.chat_template_kwargs.", "judge_settings.")):
        raise BadInputError(f"--set {text}: unknown setting '{key}', {nearest_settings(key, known)}")
    return key, parse_yaml(value, f"--set {text}")


def nearest_settings(key: str, known: Iterable[str]) -> str:
    """Return the three settings that are most like a name, by the whole name or by its last part."""

    def likeness(name: str) -> float:
        pairs = ((key, name), (key.rpartition(".")[2], name.rpartition(".")[2]))
        whole, last = (SequenceMatcher(None, *pair).ratio() for pair in pairs)
        return max(whole, last) + whole / 10

    first, second, third = sorted(known, key=likeness, reverse=True)[:3]
    return f"did you mean '{first}', '{second}' or '{third}'?"


def _grouped(settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return settings by dotted name as groups within groups."""
    result: dict[str, Any] = {}
    for key, value in settings:
        *groups, name = key.split(".")
        group = result
        for each in groups:
            if not isinstance(group.get(each), dict):
                group[each] = {}
            group = group[each]
        group[name] = value
    return result


def _checked(layer: Mapping[str, Any], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(layer)
    except ValidationError as error:
        raise BadInputError(f"{where}{explain(error, RunConfig, layer)}") from None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        name, old = f"{prefix}{key}", result.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping) and name not in whole_settings():
            result[key] = _merged(old, value, f"{name}.")
        else:
            result[key] = value
    return result
