"""Write a comment on a pull request, or update the one written before: the last step of the GitHub action.

    python tools/pull_request_comment.py OWNER/REPOSITORY NUMBER NAME FILE...

The comment is the files, in their order, below a first line that GitHub does not show and that finds the comment again.
A file after the first that would make it longer than GitHub allows is left out, and the comment says so. GITHUB_TOKEN
holds the token, GITHUB_API_URL the address where it is not that of github.com. Needs nothing but Python itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

MOST = 65_536
"""Characters of a comment."""
_PAGE = 100
_SECONDS = 60


def main(arguments: Sequence[str]) -> None:
    """Write or update the comment that the command line asks for."""
    if len(arguments) < 4:
        _fail("expected OWNER/REPOSITORY NUMBER NAME FILE...")
    repository, number, name, *files = arguments
    mark = f"<!-- moe-safety-harness: {quote(name)} -->"
    content = {"body": comment(mark, [Path(file) for file in files])}
    comments = f"/repos/{repository}/issues/{number}/comments"
    found = _find(comments, mark)
    if found is None:
        _call("POST", comments, content)
    else:
        _call("PATCH", f"/repos/{repository}/issues/comments/{found}", content)


def comment(mark: str, files: Sequence[Path], most: int = MOST) -> str:
    """Return the text of the comment."""
    first, *more = files
    text = f"{mark}\n{first.read_text(encoding='utf-8')}"
    if len(text) > most:
        end = "\n\n(too long for a comment)\n"
        text = text[: most - len(end)] + end
    for file in more:
        part = f"\n{file.read_text(encoding='utf-8')}"
        if len(text) + len(part) > most:
            part = f"\n{file.name} is too long for this comment.\n"
        text += part[: most - len(text)]
    return text


def _find(comments: str, mark: str) -> int | None:
    """Return the id of the comment with the mark; what people write with the same mark is not ours."""
    page = 1
    while True:
        rows = _call("GET", f"{comments}?per_page={_PAGE}&page={page}")
        for row in rows:
            is_bot = (row.get("user") or {}).get("type") == "Bot"
            if is_bot and (row.get("body") or "").startswith(mark):
                return int(row["id"])
        if len(rows) < _PAGE:
            return None
        page += 1


def _call(method: str, path: str, content: dict[str, str] | None = None) -> Any:
    url = os.environ.get("GITHUB_API_URL", "https://api.github.com") + path
    request = Request(url, None if content is None else json.dumps(content).encode(), method=method)
    request.add_header("Authorization", f"Bearer {os.environ.get('GITHUB_TOKEN', '')}")
    request.add_header("Accept", "application/vnd.github+json")
    try:
        with urlopen(request, timeout=_SECONDS) as answer:
            return json.load(answer)
    except HTTPError as error:
        said = error.read().decode("utf-8", "replace")[:200]
        needs = " (the token needs the permission pull-requests: write)" if error.code in (401, 403) else ""
        _fail(f"{method} {url}: HTTP {error.code}: {' '.join(said.split())}{needs}")
    except (URLError, TimeoutError) as error:
        _fail(f"{method} {url}: {error}")


def _fail(reason: str) -> NoReturn:
    sys.exit(f"no comment: {reason}")


if __name__ == "__main__":
    main(sys.argv[1:])
