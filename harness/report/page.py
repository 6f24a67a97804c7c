"""What every HTML page of the harness shares: its templates, its style sheet and a policy that lets nothing else in."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from harness.base.content import content_folder
from harness.report.words import percent, visible

# The page around a fragment may colour its own paragraphs and headings; these take the fragment's ink.
_INK = ":is(p, h2, ul, li, dl, dt, dd, code, strong, data, details, summary) { color: inherit; }\n"
_PAGE = re.compile(r"(?:(?<=^)|(?<=^  ))(?::root|body)(?= \{)", re.MULTILINE)


def environment(*, trim_blocks: bool = True, **options: Any) -> jinja2.Environment:
    """Return an environment for the templates of `reports/`; a name that a template lacks is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(content_folder("reports")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=trim_blocks,
        lstrip_blocks=True,
        **options,
    )
    made.filters["percent"] = percent
    return made


def render_page(template: str, scripts: Sequence[str] = (), **content: Any) -> str:
    """Return a page of `reports/` as one file.

    Args:
        template: its name; it extends page.html.j2.
        scripts: names of scripts in `reports/`, in their order; no other script can run on the page.
        **content: what the template shows. Strings are escaped, and invisible characters in them written out.
    """
    folder = content_folder("reports")
    style = (folder / "style.css").read_text(encoding="utf-8")
    code = [(folder / name).read_text(encoding="utf-8") for name in scripts]
    return (
        environment(autoescape=True, finalize=_finalize)
        .get_template(template)
        .render(
            style=Markup(style),
            scripts=[Markup(text) for text in code],
            policy=_policy(style, code),
            **content,
        )
    )


def render_fragment(template: str, **content: Any) -> str:
    """Return a piece of a page of somebody else's, with the style sheet for what is inside its `.harness-run` alone.

    Args:
        template: its name in `reports/`.
        **content: as for `render_page`.
    """
    style = (content_folder("reports") / "style.css").read_text(encoding="utf-8")
    # Rules inside a rule are for what is inside; `&` is the element itself, in place of the page.
    nested = f".harness-run {{\n{_INK}{_PAGE.sub('&', style)}}}"
    made = environment(autoescape=True, finalize=_finalize).get_template(template)
    return made.render(style=Markup(nested), **content)


def standalone(chart: Markup) -> str:
    """Return a chart as an SVG file of its own, which carries the style sheet of the pages."""
    style = (content_folder("reports") / "style.css").read_text(encoding="utf-8")
    opening, body = chart.split(">", 1)
    return f'{opening} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{body}\n'


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Return a content-security policy that allows this style sheet and these scripts, and no request."""
    allowed = " ".join(_hash(text) for text in scripts) or "'none'"
    return f"default-src 'none'; style-src {_hash(style)}; script-src {allowed}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _finalize(value: Any) -> Any:
    return visible(value, lines=True) if isinstance(value, str) and not hasattr(value, "__html__") else value
