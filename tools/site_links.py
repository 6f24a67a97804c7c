"""A hook of mkdocs: links that lead out of docs/, such as to a task's YAML file, are text on the site.

The site holds no copy of those files. A link to a file that does not exist stays, and `mkdocs build --strict` fails
on it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Return a page whose links to folders and to files outside docs/ are replaced by their words."""
    docs = Path(config["docs_dir"]).resolve()
    folder = Path(page.file.abs_src_path).parent

    def kept(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        leads_out = target.exists() and (target.is_dir() or not target.is_relative_to(docs))
        return link[1] if leads_out else link[0]

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^):#\s]+)(?:#[^)\s]*)?\)", kept, markdown)
