"""The functions of the original guide, on the same machinery as `harness run`.

Shapes are those of the guide, with one difference that it left open: the last sampled token is never routed, so an
answer of G tokens has G - 1 rows of routing. Every dictionary says which tokens its rows belong to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from harness.base.errors import BadInputError, HarnessError, nearest
from harness.routing.phases import Phase

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.training.bank import ExpertBank

# vLLM's names of sampling parameters that transformers calls otherwise.
_VLLM_NAMES = {"max_tokens": "max_new_tokens", "min_tokens": "min_new_tokens"}
_SAMPLES = ("temperature", "top_p", "top_k", "min_p")
# Parameters of `generate` that are no settings.
_TAKEN = ("inputs", "generation_config", "kwargs")


def get_routings_with_generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    sampling_params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Let a model answer one conversation and return its router logits.

    Args:
        model: a transformers MoE model.
        tokenizer: has a chat template.
        messages: the user's messages, such as `[{"role": "user", "content": "Count to ten"}]`.
        sampling_params: settings of `model.generate`, also by vLLM's names (`max_tokens`); greedy decoding of 64 tokens
            by default, and where the temperature is 0.

    Returns:
        - router_logits: float32 [MoE layers, routed tokens, experts]
        - layers: true indices of the MoE layers
        - prompt_token_ids, generated_token_ids, all_token_ids (prompt and generated)
        - generated_text: reasoning and answer
        - n_reasoning_tokens: generated tokens before the answer's first; 0 where the model did not think, all of
          them where the answer never began
        - n_routed_tokens: prompt tokens + generated tokens - 1; the rows of router_logits

    Raises:
        BadInputError: a dense model, one whose router has no logits to hand out, messages that are none, or a setting
            that `generate` does not know.
        HarnessError: other rows were routed than one per token.
    """
    import torch

    from harness.models.chat import ChatTemplate
    from harness.models.decoding import decoding_by, greedy
    from harness.models.moe import find_moe
    from harness.models.thoughts import Reader
    from harness.routing.logits import RouterLogits

    _require_list(messages, "messages", 'such as [{"role": "user", "content": "Count to ten"}]', _is_mapping)
    settings = _generation_settings(sampling_params or {}, model)
    if "stop_strings" in settings:
        settings["tokenizer"] = tokenizer
    moe = find_moe(model)
    rules = greedy(model.generation_config.eos_token_id, tokenizer.pad_token_id, 64)
    more = rules.update(**settings)
    chat = ChatTemplate(tokenizer)
    prompt_ids = chat.conversation(messages)
    tokens = torch.tensor([prompt_ids], device=model.device)
    with torch.inference_mode(), RouterLogits(moe).recorded() as recorder, decoding_by(model, rules):
        generate: Any = model.generate
        output = generate(tokens, attention_mask=torch.ones_like(tokens), generation_config=rules, **more)
    logits = recorder.take(batch=1)[:, 0].float().cpu().numpy()
    generated_ids = output[0, len(prompt_ids) :].tolist()
    expected = len(prompt_ids) + len(generated_ids) - 1
    if logits.shape[1] != expected:
        raise HarnessError(
            f"{logits.shape[1]} tokens were routed, expected {expected} (prompt + answer - 1): "
            "sampling_params asks for other decoding than one token after another"
        )
    ends = rules.eos_token_id
    reader = Reader(chat, ends if isinstance(ends, list) else [] if ends is None else [ends])
    answer_at = reader.read(generated_ids).at
    return {
        "router_logits": logits,
        "layers": moe.layer_indices,
        "prompt_token_ids": prompt_ids,
        "generated_token_ids": generated_ids,
        "generated_text": tokenizer.decode(generated_ids, skip_special_tokens=True),
        "all_token_ids": prompt_ids + generated_ids,
        "n_routed_tokens": logits.shape[1],
        "n_reasoning_tokens": len(generated_ids) if answer_at is None else answer_at,
        "experts_per_token": moe.experts_per_token,
    }


def separate_prompt_and_generation_routings(output: Mapping[str, Any]) -> dict[str, Any]:
    """Split the routing of `get_routings_with_generation` into prompt and answer.

    Returns:
        - prompt_routings: float32 [MoE layers, prompt tokens, experts]
        - generation_routings: float32 [MoE layers, generated tokens - 1, experts]
        - prompt_tokens, generated_tokens: the token ids of the rows
        - n_reasoning_tokens: generated tokens before the answer's first, as in the input
        - layers, experts_per_token: as in the input
    """
    width = len(output["prompt_token_ids"])
    logits = output["router_logits"]
    return {
        "prompt_routings": logits[:, :width],
        "generation_routings": logits[:, width:],
        "prompt_tokens": list(output["prompt_token_ids"]),
        "generated_tokens": list(output["generated_token_ids"][: logits.shape[1] - width]),
        "n_reasoning_tokens": output["n_reasoning_tokens"],
        "layers": output["layers"],
        "experts_per_token": output["experts_per_token"],
    }


def process_prompt_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    safe_prompts: Sequence[str],
    unsafe_prompts: Sequence[str],
    sampling_params: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Let a model answer safe and unsafe prompts; returns the separated routings of each.

    Raises:
        BadInputError: as `get_routings_with_generation`, or prompts that are not a list of texts.
    """
    for name, prompts in (("safe_prompts", safe_prompts), ("unsafe_prompts", unsafe_prompts)):
        _require_list(prompts, name, 'such as ["Count to ten"]', _is_text)

    def answered(prompts: Sequence[str]) -> list[dict[str, Any]]:
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        outputs = [get_routings_with_generation(model, tokenizer, chat, sampling_params) for chat in chats]
        return [separate_prompt_and_generation_routings(output) for output in outputs]

    return answered(safe_prompts), answered(unsafe_prompts)


def calculate_risk_diff(
    safe_routings: Sequence[Mapping[str, Any]],
    unsafe_routings: Sequence[Mapping[str, Any]],
    phase: Phase = "all",
) -> pd.DataFrame:
    """Compare how often each expert serves unsafe and safe prompts.

    Args:
        safe_routings: from `process_prompt_batch`.
        unsafe_routings: likewise.
        phase: prompt, generation or all; of a model that thinks also reasoning or answer, the parts of a generation.

    Returns:
        The expert table, the highest risk difference first: layer, expert, a_safe, a_unsafe, a_safe_n,
        a_unsafe_n, risk_diff. An expert counts as used by a token when its router logit is among the top k,
        which holds for routers that choose by their logits alone; `harness run` watches the experts instead.

    Raises:
        BadInputError: no routings, an unknown phase, or one without a routed token.
    """
    from harness.experts.table import expert_table

    if phase not in (phases := get_args(Phase)):
        raise BadInputError(f"unknown phase '{phase}', {nearest(str(phase), phases)}")
    for name, routings in (("safe_routings", safe_routings), ("unsafe_routings", unsafe_routings)):
        _require_list(routings, name, "from process_prompt_batch", _is_mapping)
    safe, unsafe = _counts(safe_routings), _counts(unsafe_routings)
    table = expert_table(unsafe, safe, phases=[phase])
    ordered = table.sort_values(["risk_diff", "layer", "expert"], ascending=[False, True, True])
    return ordered.reset_index(drop=True)


def identify_unsafe_experts(
    risk_diff: pd.DataFrame, threshold: float | None = 0.05, top_k: int | None = 50
) -> list[tuple[int, int]]:
    """Return (layer, expert) of the riskiest experts: at least `threshold`, at most `top_k` of them.

    Raises:
        BadInputError: no expert is left, `top_k` is below 1, or the table is not that of `calculate_risk_diff`.
    """
    from harness.experts.select import Limits, select_experts

    columns = getattr(risk_diff, "columns", ())
    absent = [name for name in ("phase", "layer", "expert", "risk_diff") if name not in columns]
    if absent:
        raise BadInputError(f"risk_diff: expected the table of calculate_risk_diff, it has no '{absent[0]}'")
    if top_k is not None and top_k < 1:
        raise BadInputError(f"top_k: expected at least 1, found {top_k}")

    phase = str(risk_diff["phase"].iloc[0])
    at_most = min(top_k, len(risk_diff)) if top_k is not None else None
    selection = select_experts(risk_diff, phase=phase, limits=Limits(at_most, threshold))
    return [(layer, expert) for layer, expert in selection.experts]


def freeze_model_except_unsafe_experts(
    model: PreTrainedModel, unsafe_experts: Sequence[tuple[int, int]]
) -> ExpertBank:
    """Freeze a model and return the trainable bank of the unsafe experts' MLPs.

    transformers 5 keeps all experts of a layer in one tensor, so single experts cannot be unfrozen in place.
    Train `bank.parameters()` inside `with bank.installed():`, then put the values into the model with
    `harness.checkpoints.delta.write_delta_into`.

    Raises:
        BadInputError: nothing to train, or experts that do not exist.
    """
    from harness.models.moe import Expert, find_moe
    from harness.training.bank import ExpertBank

    _require_list(unsafe_experts, "unsafe_experts", "of pairs such as [(2, 7)], layer and expert", _is_pair)
    experts = [Expert(*expert) for expert in unsafe_experts]
    bank = ExpertBank(find_moe(model), experts)
    model.requires_grad_(False)
    return bank


def _require_list(values: object, name: str, example: str, fits: Callable[[Any], bool]) -> None:
    """Refuse a single value, or another thing, where a list is meant.

    Raises:
        BadInputError: it is no list, or an item does not fit.
    """
    expected = f"{name}: expected a list {example}"
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise BadInputError(f"{expected}, found {_shown(values)}")
    for place, value in enumerate(values):
        if not fits(value):
            raise BadInputError(f"{expected}; item {place} is {_shown(value)}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_pair(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2


def _shown(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '...'}"


def _generation_settings(given: Mapping[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """Return sampling parameters, in transformers' names or vLLM's, as settings of `generate`.

    Raises:
        BadInputError: one is unknown, given under both names, or they are no mapping.
    """
    if not isinstance(given, Mapping):
        raise BadInputError(
            f'sampling_params: expected a mapping such as {{"max_tokens": 64}}, found {_shown(given)}'
        )
    own = (name for name in vars(model.generation_config) if not name.startswith("_"))
    generate: Any = model.generate
    known = {*own, *inspect.signature(generate).parameters, *_VLLM_NAMES}.difference(_TAKEN)
    settings: dict[str, Any] = {}
    for name, value in given.items():
        called = _VLLM_NAMES.get(name, name)
        if name not in known:
            raise BadInputError(f"sampling_params: unknown '{name}', {nearest(name, known)}")
        if called in settings:
            raise BadInputError(f"sampling_params: '{called}' is given twice")
        settings[called] = value
    # As vLLM has it: a temperature of 0 is greedy, any other setting of sampling samples, and top_k = -1 is all tokens.
    if settings.get("temperature") == 0:
        return {name: value for name, value in settings.items() if name not in _SAMPLES} | {
            "do_sample": False
        }
    if settings.get("top_k") == -1:
        settings["top_k"] = 0
    return {"do_sample": any(name in settings for name in _SAMPLES)} | settings


def _counts(routings: Sequence[Mapping[str, Any]]) -> Any:
    """Count the top-k experts of router logits as RoutingCounts."""
    from harness.routing.counts import STORED_PHASES, RoutingCounts

    if not routings:
        raise BadInputError("no routings to compare: give at least one prompt of each kind")
    layers, _, experts = routings[0]["prompt_routings"].shape
    counts = np.zeros((len(routings), len(STORED_PHASES), layers, experts), dtype=np.int32)
    tokens = np.zeros((len(routings), len(STORED_PHASES)), dtype=np.int32)
    k = int(routings[0]["experts_per_token"])
    for sample, routing in enumerate(routings):
        generation = routing["generation_routings"]
        parts = {
            "prompt": routing["prompt_routings"],
            "generation": generation,
            "reasoning": generation[:, : routing.get("n_reasoning_tokens", 0)],
        }
        for name, part in parts.items():
            logits, place = np.asarray(part), STORED_PHASES.index(name)
            chosen = np.argpartition(-logits, k - 1, axis=-1)[..., :k]
            used = np.zeros(logits.shape, dtype=np.int32)
            np.put_along_axis(used, chosen, 1, axis=-1)
            counts[sample, place] = used.sum(axis=1)
            tokens[sample, place] = logits.shape[1]
    names = tuple(str(i) for i in range(len(routings)))
    return RoutingCounts(names, tuple(routings[0]["layers"]), k, counts, tokens)
