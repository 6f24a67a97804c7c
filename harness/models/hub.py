"""Models of the hub: what is downloaded of a repository, and what is not."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from harness.base.errors import BadInputError, first_line
from harness.models.weights import INDEX, weight_files

# Everything that configuration and tokenizer may lie in, whatever the kind of tokenizer.
_SMALL = (
    *(
        "*.json",
        "*.jinja",
        "*.txt",
        "*.model",
        "*.model.*",
        "*.tiktoken",
        "*.bpe",
        "*.spm",
        "*.vocab",
        "*.dict",
    ),
    *("tokenizer*", "vocab*", "merges*", "spiece*"),
    # What a changed copy must keep, or say of its base.
    *("README.md", "LICENSE*", "NOTICE*"),
)
# The same model once more, for other programs; in folders of their own are also adapters and training's leftovers.
_TWICE = (
    "consolidated*",
    "original/*",
    "*/*.json",
    "*/*.model",
    "*/*.txt",
    "*/*.tiktoken",
    "*/*.safetensors",
)
_WEIGHTS = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.gguf",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.ot",
)


def is_of_model(name: str) -> bool:
    """Say whether a file, by its name in a folder, is one that programs need of a model, its own code included."""
    wanted = (*_SMALL, "*.py", "*.safetensors")
    return any(fnmatch(name, each) for each in wanted) and not any(fnmatch(name, each) for each in _TWICE)


def from_hub(name: str, with_code: bool, with_weights: bool = True) -> Path:
    """Download what is needed of a repository of the hub, or find it in the hub's cache.

    First the small files; then the weights, which are those that the index names: repositories often hold them a
    second time in another layout or dtype.

    Args:
        name: owner and repository.
        with_code: the checkpoint's own Python code too.
        with_weights: False for the small files alone, to look at a model.

    Raises:
        BadInputError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    small = [*_SMALL, *(["*.py"] if with_code else [])]
    unwanted = [*_TWICE, *_WEIGHTS, *([] if with_code else ["*.py"])]
    try:
        folder = Path(snapshot_download(name, allow_patterns=small, ignore_patterns=unwanted))
        if not with_weights:
            return folder
        named = weight_files(folder) if (folder / INDEX).is_file() else ["*.safetensors"]
        # A snapshot's folder is called by its commit: the weights must be of the same.
        return Path(
            snapshot_download(
                name, revision=folder.name, allow_patterns=named, ignore_patterns=["consolidated*", "*/*"]
            )
        )
    except BadInputError:
        raise
    except Exception as error:
        # The hub client raises many kinds: whichever it was, the user named a model that cannot be had.
        raise BadInputError(
            f"model '{name}' is no local folder and the hub did not give it: {first_line(error)}"
        ) from error
