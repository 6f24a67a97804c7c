"""The Hub: repositories of deltas and checkpoints, written and read by huggingface_hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import harness
from harness.base.errors import BadInputError, HarnessError, first_line
from harness.base.secrets import without_secrets
from harness.checkpoints.copying import README, is_weights
from harness.checkpoints.delta_file import CARD, TENSORS
from harness.checkpoints.model_card import LIBRARY
from harness.models.hub import is_of_model

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
_MAIN = "main"
_REVISION = re.compile(r"[\w.][\w./-]*")
# What a server answers may be a whole page.
_LONGEST = 500
_WITHOUT_XET = ": a server without Xet storage takes files with HF_HUB_DISABLE_XET=1"


class Uploaded(NamedTuple):
    """Where a push went.

    Attributes:
        url: of the commit.
        private: whether others can see the repository.
    """

    url: str
    private: bool


def check_repository(name: str, revision: str | None = None) -> None:
    """Refuse the name of a repository, and of a branch of it, that the Hub would refuse.

    Raises:
        BadInputError: huggingface_hub's own reason.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise BadInputError(f"repository '{name}': {first_line(error)}") from None
    if "/" not in name:
        raise BadInputError(f"repository '{name}': expected an owner too, ORG/{name}")
    if revision is not None and not _REVISION.fullmatch(revision):
        raise BadInputError(
            f"revision {revision!r} of '{name}': expected the name of a branch, a tag or a commit"
        )


def published(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files of a checkpoint that are pushed, by name, and those that are not, with the reason.

    A folder on disk may hold anything; what a model does not need is nobody else's business.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    pushed = {name: folder / name for name in names if name != README and is_of_model(name)}
    left_out = {name: "no part of a model" for name in names if name != README and name not in pushed}
    return pushed, left_out


def require_token() -> None:
    """Refuse a push where huggingface_hub knows no token.

    Raises:
        BadInputError: with the remedy.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise BadInputError("the Hub needs a token to write: run `hf auth login`, or set HF_TOKEN")


def delta_from(place: str) -> Path:
    """Return the folder of a delta: a local one, or hf://ORG/REPO[@REVISION], which is downloaded.

    Raises:
        BadInputError: the repository cannot be had, or holds no delta.
    """
    if not place.startswith(SCHEME):
        return Path(place)
    from huggingface_hub import snapshot_download

    repository, at, revision = place.removeprefix(SCHEME).removeprefix("models/").partition("@")
    check_repository(repository, revision if at else None)
    try:
        with _errors_of_hub(place):
            folder = Path(
                snapshot_download(repository, revision=revision or None, allow_patterns=[TENSORS, CARD])
            )
    except HarnessError as error:
        raise BadInputError(str(error)) from error
    for name in (TENSORS, CARD):
        if not (folder / name).is_file():
            raise BadInputError(
                f"{place} holds no {name}: expected a delta that `harness models push` wrote; a merged checkpoint "
                "needs no applying"
            )
    return folder


def upload(
    repository: str,
    files: Mapping[str, Path | str],
    *,
    private: bool,
    revision: str | None,
    message: str,
) -> Uploaded:
    """Write files into a repository of the Hub, in one commit; it is created where there is none.

    Args:
        repository: owner and name.
        files: by their names there; a text is the file's content.
        private: whether it may be seen by its owner alone.
        revision: branch to write to, created where there is none.
        message: of the commit.

    Raises:
        BadInputError: it is public and was to be private, or holds weights that these files would be mixed with.
        HarnessError: the Hub refused, or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name=LIBRARY, library_version=harness.__version__)
    with _errors_of_hub(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        is_private = bool(api.repo_info(repository).private)
        if private and not is_private:
            raise BadInputError(
                f"{repository} is there already and public: add --public, or name another repository"
            )
        if revision not in (None, _MAIN):
            api.create_branch(repository, branch=str(revision), exist_ok=True)
        _refuse_mixture(api, repository, revision, files)
        operations = [
            CommitOperationAdd(name, content.encode() if isinstance(content, str) else content)
            for name, content in files.items()
        ]
        done = api.create_commit(repository, operations, commit_message=message, revision=revision)
    return Uploaded(done.commit_url, is_private)


def _refuse_mixture(api: HfApi, repository: str, revision: str | None, files: Mapping[str, object]) -> None:
    """Refuse a repository with other weights, which programs would load beside or in place of these."""
    there = api.list_repo_files(repository, revision=revision)
    others = sorted(name for name in there if is_weights(name) and name not in files)
    if others:
        raise BadInputError(
            f"{repository} holds {others[0]}, which this push would leave beside its own weights: name another "
            "repository or --revision, or remove it there"
        )


@contextmanager
def _errors_of_hub(where: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into one line without the token.

    Raises:
        HarnessError: the Hub's reason.
    """
    from huggingface_hub import get_token

    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        # Its client raises many kinds: of its own, of HTTP, of the network.
        reason = without_secrets(" ".join(str(error).split()), get_token()) or type(error).__name__
        remedy = _WITHOUT_XET if "/xet-write-token/" in reason else ""
        raise HarnessError(f"{where}: {reason[:_LONGEST]}{remedy}") from error
