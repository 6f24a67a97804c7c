"""A checkpoint's settings for decoding: the tokens that end an answer are followed, everything else is set aside.

Published checkpoints come with settings for chatting (sampling, penalties, beams) or left by a trainer
(`use_cache: false`). Each would change answers or routing, so decoding is defined here, never by the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError, nearest
from harness.base.files import read_json_object, read_mapping

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

GENERATION_CONFIG = "generation_config.json"
# A checkpoint's own `generate`, which transformers puts in place of the model's where remote code is trusted.
_CUSTOM_GENERATE = "custom_generate/generate.py"

# What a configuration may ask of every forward pass besides the architecture, with the values that the harness needs.
_FORWARD: dict[str, bool] = {
    "use_cache": True,
    "return_dict": True,
    "output_router_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
}


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_factor(value: Any) -> bool:
    return type(value) in (int, float) and value > 0


def _are_tokens(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(type(token) is int and token >= 0 for token in value)
    )


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_are_tokens, value))


# What may be followed, with what its value must be: rules about which token comes next. All else changes how many
# tokens there are, which of them pass the experts, or draws at random.
FOLLOWABLE: dict[str, Callable[[Any], bool]] = {
    "bad_words_ids": _are_words,
    "begin_suppress_tokens": _are_tokens,
    "min_new_tokens": _is_count,
    "no_repeat_ngram_size": _is_count,
    "repetition_penalty": _is_factor,
    "suppress_tokens": _are_tokens,
}
_TOKENS = {"eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"}
_ORIGIN = {"transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash"}
_LONGEST_VALUE = 60


def end_tokens(
    folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[int, ...]:
    """Return the tokens that end an answer.

    Those of generation_config.json; where it names none, those of config.json; where neither does, the tokenizer's.

    Raises:
        BadInputError: there are none, or one is no token id.
    """
    where, named = GENERATION_CONFIG, None
    if (folder / GENERATION_CONFIG).is_file():
        named = read_json_object(folder / GENERATION_CONFIG).get("eos_token_id")
    if named is None:
        where, named = "config.json", getattr(config, "eos_token_id", None)
    if named is None:
        named = getattr(config.get_text_config(decoder=True), "eos_token_id", None)
    if named is None and tokenizer is not None:
        named = tokenizer.eos_token_id
    ends: list[Any] = list(named) if isinstance(named, (list, tuple)) else [named]
    if not ends or ends == [None]:
        raise BadInputError(
            f"{folder}: neither the tokenizer nor {where} names a token that ends an answer: expected eos_token_id"
        )
    for end in ends:
        if not isinstance(end, int) or isinstance(end, bool):
            raise BadInputError(
                f"{folder / where}: eos_token_id has {end!r}, expected a token id or a list of them"
            )
        if end < 0 or not has_embedding(config, end):
            size = vocabulary_size(config)
            raise BadInputError(
                f"{folder / where}: eos_token_id has {end}, expected ids from 0 to vocab_size - 1 ({size})"
            )
    return tuple(ends)


def vocabulary_size(config: Any) -> int | None:
    """Return how many tokens a model has an embedding for; None where its configuration does not say."""
    size = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    return size if isinstance(size, int) else None


def has_embedding(config: Any, token: int) -> bool:
    """Whether a token is within the model's vocabulary, as far as its configuration says: tokens are added without."""
    size = vocabulary_size(config)
    return size is None or token < size


def greedy(
    ends: Sequence[int] | int | None,
    pad: int | None,
    max_new_tokens: int | None = None,
    followed: Mapping[str, Any] | None = None,
) -> GenerationConfig:
    """Return plain greedy decoding up to one of the end tokens.

    Args:
        ends: the end tokens.
        pad: the padding token.
        max_new_tokens: the longest answer.
        followed: settings of a checkpoint that are followed, from `followed`.
    """
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        eos_token_id=list(ends) if isinstance(ends, Sequence) else ends,
        pad_token_id=pad,
        max_new_tokens=max_new_tokens,
        **(followed or {}),
    )


@contextmanager
def decoding_by(model: PreTrainedModel, rules: GenerationConfig) -> Iterator[None]:
    """Let a model generate by these rules alone inside the block.

    transformers fills whatever the rules handed to `generate` leave open from the model's own.
    """
    own = model.generation_config
    model.generation_config = rules
    try:
        yield
    finally:
        model.generation_config = own


def plain_forward(config: PreTrainedConfig) -> PreTrainedConfig:
    """Make a configuration, and those inside it, ask nothing of a forward pass besides its logits and cache."""
    for name, value in _FORWARD.items():
        if getattr(config, name, value) != value:
            setattr(config, name, value)
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if part is not None:
            plain_forward(part)
    return config


def followed(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the values of the generation settings of a checkpoint that are to be followed.

    Args:
        folder: of the checkpoint.
        names: from the setting `generation.follow`.

    Raises:
        BadInputError: a name is not one that can be followed, the checkpoint has no such setting, or its value cannot
            be used.
    """
    own = _settings(folder) if names else {}
    for name in names:
        where = f"generation.follow: '{name}'"
        if name in own and name not in FOLLOWABLE:
            raise BadInputError(f"{where} is no rule for greedy decoding, expected {', '.join(FOLLOWABLE)}")
        if name not in FOLLOWABLE:
            raise BadInputError(f"{where} is no setting that can be followed, {nearest(name, FOLLOWABLE)}")
        if name not in own:
            has = in_words(own) or "none"
            raise BadInputError(f"{where} is not among the generation settings of {folder.name}: {has}")
        if not FOLLOWABLE[name](own[name]):
            raise BadInputError(
                f"{where} cannot be followed: {folder.name} has {in_words({name: own[name]})}"
            )
    return {name: own[name] for name in sorted(set(names))}


def set_aside(folder: Path, follow: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings of a checkpoint that would change how it decodes, by name, and are not followed.

    Where config.json and generation_config.json both have one, the value of the latter.

    Args:
        folder: of the checkpoint.
        follow: those that are followed.

    Raises:
        BadInputError: a file is no JSON object.
    """
    return {name: value for name, value in _settings(folder).items() if name not in follow}


def _settings(folder: Path) -> dict[str, Any]:
    from transformers import GenerationConfig

    config = read_json_object(folder / "config.json")
    text = config.get("text_config")
    known = (vars(GenerationConfig()).keys() | _FORWARD.keys()) - _TOKENS - _ORIGIN
    settings = {
        name: value
        for part in (config, text if isinstance(text, dict) else {})
        for name, value in part.items()
        if name in known
    }
    if (folder / GENERATION_CONFIG).is_file():
        own = read_json_object(folder / GENERATION_CONFIG)
        settings |= {name: value for name, value in own.items() if name not in _TOKENS | _ORIGIN}
    if (folder / _CUSTOM_GENERATE).is_file():
        settings["custom_generate"] = _CUSTOM_GENERATE
    neutral = _FORWARD | read_mapping(Path(__file__).with_name("neutral.yaml"))
    return {
        name: value
        for name, value in sorted(settings.items())
        if (value is not None and value != neutral[name] if name in neutral else value)
    }


def in_words(settings: Mapping[str, Any]) -> str:
    """Write settings on one line: `num_beams = 4, use_cache = false`."""
    values = {name: json.dumps(value) for name, value in settings.items()}
    return ", ".join(
        f"{name} = {value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + '...'}"
        for name, value in values.items()
    )
