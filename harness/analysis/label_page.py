"""A small page to label answers by hand, served to this machine only. It holds no script and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import secrets
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jinja2
from markupsafe import Markup

from harness.analysis.labelling import Labelling
from harness.base.content import content_folder
from harness.judges.labels import LABELS

LOOPBACK = "127.0.0.1"
_LONGEST_FORM = 10_000


class LabelServer(HTTPServer):
    """Serves one labelling on the loopback interface.

    Only who knows the address, with its token, gets in: other programs and web pages open in the same browser can
    guess the port, not the token.

    Args:
        labelling: what to label.
        port: 0 for any free one.
    """

    def __init__(self, labelling: Labelling, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), _Page)
        self.labelling = labelling
        self.token = secrets.token_urlsafe(16)
        folder = content_folder("reports")
        self.style = (folder / "style.css").read_text(encoding="utf-8")
        self.template = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined
        ).get_template("label.html.j2")

    @property
    def url(self) -> str:
        """The address to open."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}"


class _Page(BaseHTTPRequestHandler):
    server: LabelServer
    server_version, sys_version = "labels", ""

    def do_GET(self) -> None:
        if self._is_allowed():
            self._show()

    def do_POST(self) -> None:
        if not self._is_allowed():
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _LONGEST_FORM:
            self.send_error(400, "expected a short form")
            return
        form = parse_qs(self.rfile.read(int(length)).decode("utf-8", errors="replace"))
        id, choice = form.get("id", [""])[0], form.get("label", [""])[0]
        labelling = self.server.labelling
        if choice == "undo":
            labelling.undo()
        elif id not in {answer.id for answer in labelling.answers}:
            self.send_error(400, "unknown answer")
            return
        elif choice == "later":
            labelling.put_off(id)
        else:
            label = next((label for label in LABELS[labelling.draw.quantity] if label == choice), None)
            if label is None:
                self.send_error(400, "unknown label")
                return
            labelling.label(id, label)
        # Reloading the page then shows it again and sends nothing twice.
        self.send_response(303)
        self.send_header("Location", f"/{self.server.token}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep requests, whose address holds the token, out of the terminal."""

    def _is_allowed(self) -> bool:
        # A foreign name that resolves to this machine would give a foreign page this page's rights.
        own = {f"{name}:{self.server.server_port}" for name in (LOOPBACK, "localhost")}
        path = urlsplit(self.path).path.strip("/")
        if self.headers.get("Host") in own and secrets.compare_digest(
            path.encode(), self.server.token.encode()
        ):
            return True
        self.send_error(404, "not here")
        return False

    def _show(self) -> None:
        server = self.server
        content = server.template.render(
            answer=server.labelling.next(),
            done=server.labelling.done,
            total=len(server.labelling.answers),
            path=str(server.labelling.path),
            quantity=server.labelling.draw.quantity,
            labels=LABELS[server.labelling.draw.quantity],
            style=Markup(server.style),
        ).encode()
        digest = base64.b64encode(hashlib.sha256(server.style.encode()).digest()).decode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "same-origin")
        self.send_header(
            "Content-Security-Policy",
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'",
        )
        self.end_headers()
        self.wfile.write(content)
