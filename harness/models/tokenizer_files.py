"""The files of a tokenizer: whether its own code is needed, may run, and which of them is damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.base.errors import BadInputError
from harness.base.files import read_json_object

if TYPE_CHECKING:
    from harness.models.load import ModelRef

_SETTINGS, _WHOLE, _TEKKEN = "tokenizer_config.json", "tokenizer.json", "tekken.json"
_OBJECTS = (_SETTINGS, "special_tokens_map.json", "added_tokens.json", _WHOLE, "vocab.json")
# The vocabularies that transformers reads or converts by itself.
_VOCABULARIES = (
    _WHOLE,
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)


def holds_tokenizer(folder: Path) -> bool:
    """Say whether a checkpoint's folder holds a tokenizer."""
    return any((folder / name).is_file() for name in (*_VOCABULARIES, _TEKKEN, _SETTINGS))


def runs_own_code(ref: ModelRef) -> bool:
    """Say whether a tokenizer is loaded by its own code: where transformers has no class for it, if that may run.

    Raises:
        BadInputError: its code is needed and may not run, or its files are of a kind that transformers cannot read.
    """
    path = ref.path / _SETTINGS
    settings = read_json_object(path) if path.is_file() else {}
    own = _own_class(settings)
    if own is not None and not _is_native(settings):
        if ref.trust_remote_code or ref.trust_remote_tokenizer:
            return True
        # Other vocabularies can be read without the code that splits words, and then give other tokens.
        if not (ref.path / _WHOLE).is_file():
            raise BadInputError(
                f"the tokenizer of '{ref.name}' brings its own code ({own}), which --trust-remote-tokenizer lets run"
            )
    elif (ref.path / _TEKKEN).is_file() and not any((ref.path / name).is_file() for name in _VOCABULARIES):
        raise BadInputError(
            f"{ref.path} holds its tokenizer as {_TEKKEN} alone, which only mistral-common reads: expected {_WHOLE}, "
            "for example from a conversion of the same model"
        )
    return False


def check_json(folder: Path) -> None:
    """Refuse a tokenizer's JSON that is damaged or not an object; for a better message after loading has failed.

    Raises:
        BadInputError: names the file.
    """
    for name in _OBJECTS:
        if (folder / name).is_file():
            read_json_object(folder / name)


def _own_class(settings: Mapping[str, Any]) -> str | None:
    classes = settings.get("auto_map")
    # Earlier versions wrote the pair of slow and fast class itself.
    named = classes.get("AutoTokenizer") if isinstance(classes, Mapping) else classes
    pair = named if isinstance(named, list) else [named]
    return next((name for name in reversed(pair) if isinstance(name, str)), None)


def _is_native(settings: Mapping[str, Any]) -> bool:
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    name = settings.get("tokenizer_class")
    if not isinstance(name, str):
        return False
    return any(
        kind is not None and kind.__module__.startswith("transformers.")
        for kind in map(tokenizer_class_from_name, (name, f"{name}Fast", name.removesuffix("Fast")))
    )
