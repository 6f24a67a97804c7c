"""Where finished runs are copied to: a folder, or any place that fsspec knows (s3://, gs://, ...)."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from harness.base.errors import BadInputError, first_line
from harness.base.files import move_folder
from harness.runs.layout import MANIFEST, SUMMARY, is_unfinished

# Copied last, in this order: a run whose summary is there is whole.
_LAST = (MANIFEST, SUMMARY)


class Results:
    """A place for finished runs.

    Args:
        url: a folder or an fsspec address.

    Raises:
        BadInputError: fsspec does not know such a place, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        fsspec = importlib.import_module("fsspec")
        self.url = url.rstrip("/")
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise BadInputError(f"--results {url}: {error}") from error

    def check(self) -> None:
        """Make the place, to see now whether that is allowed.

        Raises:
            BadInputError: it is not.
        """
        try:
            self._fs.makedirs(self._root, exist_ok=True)
        except Exception as error:  # each kind of storage has errors of its own
            raise BadInputError(f"--results {self.url} cannot be written to: {first_line(error)}") from error

    def has(self, name: str) -> bool:
        """Say whether a whole run is there."""
        return bool(self._fs.exists(f"{self._root}/{name}/{SUMMARY}"))

    def keep(self, run: Path, name: str) -> None:
        """Copy a finished run.

        Raises:
            OSError: it cannot be copied.
        """
        files = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]
        for file in sorted(files, key=lambda file: (file in _LAST, file)):
            if not is_unfinished(file):
                self.put(run / file, f"{name}/{file}")

    def put(self, file: Path, name: str) -> None:
        """Copy one file.

        Raises:
            OSError: it cannot be copied.
        """
        target = f"{self._root}/{name}"
        try:
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(file), target)
        except Exception as error:
            raise OSError(f"{file} cannot be copied to {self.url}: {first_line(error)}") from error

    def fetch(self, name: str, run: Path) -> None:
        """Copy a whole run back to where there is none.

        Raises:
            OSError: it cannot be copied.
        """
        if run.exists() or not self.has(name):
            return
        partial = run.with_name(f"{run.name}.fetched.partial")
        shutil.rmtree(partial, ignore_errors=True)
        source = f"{self._root}/{name}"
        try:
            for path in self._fs.find(source):
                target = partial / Path(_below(path, source))
                target.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(path, str(target))
        except Exception as error:
            raise OSError(f"{name} cannot be copied from {self.url}: {first_line(error)}") from error
        move_folder(partial, run)


def _below(path: str, folder: str) -> str:
    """Return a path relative to a folder; names that lead out of it are refused."""
    relative = path.split(folder.strip("/"), 1)[-1].strip("/")
    if not relative or ".." in Path(relative).parts:
        raise OSError(f"'{path}' is not below {folder}")
    return relative
