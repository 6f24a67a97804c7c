"""Of a repository of the hub what is needed is downloaded, nothing twice: by the real client, of a small hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEEDED = {
    *("config.json", "generation_config.json", "model.safetensors.index.json"),
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tokenizer.model.v3", "tekken.json"),
    *("qwen.tiktoken", "vocab.txt", "merges.txt", "vocab.bpe", "spiece.model", "chat_template.jinja"),
    *("additional_chat_templates/tool_use.jinja", "README.md", "LICENSE"),
}
CODE = {"modeling_own.py", "tokenization_own.py"}
UNWANTED = {
    *("consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "model.fp16.safetensors"),
    *(
        "original/model.safetensors",
        "original/params.json",
        "original/tokenizer.model",
        "metal/model.safetensors",
    ),
    *(
        "pytorch_model.bin",
        "model.gguf",
        "onnx/model.onnx",
        "figures/loss.png",
        "optimizer.pt",
        "tokenizer.bin",
    ),
}
WEIGHT_MAP = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}


class Hub(ThreadingHTTPServer):
    """A hub with one repository; keeps which files were asked for."""

    def __init__(self, files: set[str]) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files = files
        self.taken: list[str] = []

    def content(self, name: str) -> bytes:
        return (
            json.dumps({"weight_map": WEIGHT_MAP}).encode() if name.endswith(".index.json") else name.encode()
        )


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/name/tree/"):
            sizes = {name: len(self.server.content(name)) for name in sorted(self.server.files)}
            tree = [
                {"type": "file", "path": name, "size": size, "oid": COMMIT} for name, size in sizes.items()
            ]
            self.give(json.dumps(tree).encode())
            return
        if path.startswith("/api/models/"):
            files = [{"rfilename": name} for name in sorted(self.server.files)]
            body = {"id": "owner/name", "modelId": "owner/name", "sha": COMMIT, "siblings": files}
            self.give(json.dumps(body).encode())
            return
        name = path.partition("/resolve/")[2].partition("/")[2]
        if name not in self.server.files:
            self.send_error(404)
            return
        if self.command == "GET":
            self.server.taken.append(name)
        self.give(self.server.content(name))

    def give(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def download(tmp_path):
    """Return which files are downloaded of a repository, which lie in the folder, and what was printed."""
    hubs = []

    def ask(
        files: set[str], with_code: bool = False, with_weights: bool = True
    ) -> tuple[list[str], set[str], str]:
        hub = Hub(files)
        hubs.append(hub)
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        host = {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
        ask = f"from harness.models.hub import from_hub; print(from_hub('owner/name', {with_code}, {with_weights}))"
        done = subprocess.run(
            [sys.executable, "-c", ask], env={**os.environ, **host}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.strip())
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        return sorted(hub.taken), found, done.stderr

    yield ask
    for hub in hubs:
        hub.shutdown()
        hub.server_close()


@pytest.mark.parametrize("with_code", [False, True])
def test_what_is_needed_comes_and_nothing_twice(download, with_code):
    taken, found, _ = download(NEEDED | CODE | UNWANTED, with_code)
    expected = NEEDED | (CODE if with_code else set())
    assert found == expected
    assert taken == sorted(expected)


def test_a_second_start_downloads_nothing(download):
    download(NEEDED)
    taken, found, _ = download(NEEDED)
    assert taken == []
    assert found == NEEDED


def test_weights_without_an_index_are_those_beside_the_configuration(download):
    files = {"config.json", "model.safetensors", "original/model.safetensors", "consolidated.safetensors"}
    assert download(files)[1] == {"config.json", "model.safetensors"}


def test_to_look_at_a_model_its_weights_stay_where_they_are(download):
    taken, found, _ = download(NEEDED | CODE | UNWANTED, with_weights=False)
    assert found == {name for name in NEEDED if not name.endswith(".safetensors")}
    assert taken == sorted(found)
