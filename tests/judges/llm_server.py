"""A local OpenAI-compatible server for tests, and the faults that the network between it and a judge may have.

Without an upstream it stands in for the judging model: its verdict is the keyword judge's. With one it is a proxy, and
the verdict is the model's there. The protocol, the client and the connections are real; faults are made where the
bytes leave.
"""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from judges.misbehaviour import KEPT, MODES, completion, said

from harness.judges.keyword import KeywordJudge

KEY = "sk-test-0123456789"
# The block of a rubric, which its mark ends.
ANSWER = re.compile(r"<answer( [0-9a-f]+)?>\n(.*?)\n</answer(?(1)\1)>", re.DOTALL)


class LlmServer(ThreadingHTTPServer):
    """Serves verdicts.

    Attributes:
        upstream: host and port of a server with a model, in place of the keyword judge.
        faults: by a word of the answer, the faults that requests about it meet, one a request; the last one stays.
        asked: the answer of each request that arrived.
        paid: the answer of each request that was answered whole.
        bodies: what each request asked for.
        elsewhere: the address of another server, for redirects.
        let_go: set when requests that hang may end.
    """

    daemon_threads = True

    def __init__(self, faults=None, key=None, upstream=None):
        self.upstream = upstream
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults = {word: list(names) for word, names in (faults or {}).items()}
        self.key, self.asked, self.paid, self.bodies, self.listed = key, [], [], [], 0
        self.lock = threading.Lock()
        self.at_once, self.most_at_once = 0, 0
        self.elsewhere, self.let_go = "", threading.Event()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def fault(self, answer):
        for word, names in self.faults.items():
            if word in answer and names:
                return names.pop(0) if len(names) > 1 else names[0]
        return "none"

    def handle_error(self, request, client_address):
        """A client that gave up is one of the faults."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.listed += 1
        if self._knows_key():
            self._send(200, {"object": "list", "data": [{"id": "judge", "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._knows_key():
            return
        server, answer = self.server, ANSWER.search(body["messages"][0]["content"])[2]
        with server.lock:
            server.asked.append(answer)
            server.bodies.append(body)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            fault = server.fault(answer)
        try:
            time.sleep(0.02)
            self._answer(answer, fault, body)
        finally:
            with server.lock:
                server.at_once -= 1

    def _answer(self, answer, fault, body):
        if fault == "late":
            time.sleep(1.5)
        if fault in ("429", "500"):
            self._send(int(fault), {"error": {"message": "try again", "type": "x"}})
        elif fault in MODES:
            MODES[fault](self, _verdict(answer))
        elif fault in KEPT:
            said(self, fault, _verdict(answer))
            with self.server.lock:
                self.server.paid.append(answer)
        elif fault == "moved" and "?moved" not in self.path:
            self.send_response(307)
            self.send_header("Location", f"{self.path}?moved")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif fault == "dropped":
            self.close_connection = True
            self.connection.close()
        elif fault == "half":
            self._send(200, None, text='{"id": "x", "choices": [{"mess')
        elif fault == "empty":
            self._send(200, {"id": "x", "choices": []})
        else:
            found = self._forward(body) if self.server.upstream else completion(_verdict(answer))
            message = found["choices"][0]["message"]
            if fault in ("prose", "other"):
                wrong = {"prose": f"I think it is {message['content']}.", "other": '{"verdict": "maybe"}'}
                message["content"] = wrong[fault]
            self._send(200, found)
            with self.server.lock:
                self.server.paid.append(answer)

    def _forward(self, body):
        connection = HTTPConnection(*self.server.upstream, timeout=60)
        connection.request("POST", self.path, json.dumps(body), {"Content-Type": "application/json"})
        found = json.loads(connection.getresponse().read())
        connection.close()
        return found

    def _knows_key(self):
        basic = f"Basic {b64encode(f'me:{self.server.key}'.encode()).decode()}"
        if self.server.key and self.headers.get("Authorization") not in (f"Bearer {self.server.key}", basic):
            self._send(401, {"error": {"message": "no", "type": "x"}})
            return False
        return True

    def _send(self, status, content, text=None):
        body = (json.dumps(content) if text is None else text).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _verdict(answer):
    label = KeywordJudge().judge("", "", answer).label
    return json.dumps({"verdict": "full_refusal" if label == "refusal" else "full_compliance"})


@contextmanager
def serving(faults=None, key=None, upstream=None) -> Iterator[LlmServer]:
    server = LlmServer(faults, key, upstream)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
