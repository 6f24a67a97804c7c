"""A Hub on the loopback: the few endpoints that huggingface_hub uses to create, commit, list and download.

Large files come by Git LFS or, with `has_xet`, by Xet, one file per push.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from xet import content_of

TOKEN = "hf_" + "loopbackonly" * 3


@dataclass
class Repository:
    """One repository: its branches, and the files of each commit."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        before = self.commits.get(self.branches.get(branch, ""), {})
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[oid] = {**before, **files}
        self.branches[branch] = oid
        self.messages.append(message)
        return oid

    def files(self, revision: str) -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


class Hub:
    """What the server holds."""

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.has_xet = False
        self.fails: str | None = None
        """A part of a path whose requests are refused, with the token in the answer."""


class _Refused(Exception):
    def __init__(self, status: int, message: str, **more: Any) -> None:
        self.status, self.body, self.message = status, {"error": message, **more}, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        self.hub.requests.append(f"{self.command} {path}")
        try:
            if self.hub.fails is not None and self.hub.fails in path:
                raise _Refused(403, f"no rights for {self.headers.get('Authorization')}")
            for method, pattern, answer in _ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method:
                    return answer(self, body, *found.groups())
            raise _Refused(404, f"no such endpoint: {self.command} {path}")
        except _Refused as refused:
            headers = {"X-Error-Message": refused.message}
            if refused.status == 404:
                headers["X-Error-Code"] = "RepoNotFound"
            self._send(refused.status, json.dumps(refused.body).encode(), headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _may_write(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refused(401, "Invalid credentials in Authorization header")

    def _repository(self, name: str) -> Repository:
        repository = self.hub.repositories.get(name)
        is_owner = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not is_owner):
            raise _Refused(404, "Repository not found")
        return repository

    def _create(self, body: bytes) -> None:
        self._may_write()
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            raise _Refused(409, "You already created this model repo", url=url)
        self.hub.repositories[name] = Repository(asked.get("visibility") == "private")
        self._json({"url": url, "name": name})

    def _validate(self, body: bytes) -> None:
        front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
        bases = front.get("base_model", [])
        wrong = [each for each in ([bases] if isinstance(bases, str) else bases) if each.count("/") != 1]
        errors = [{"message": f'"base_model" with value "{each}" is not valid'} for each in wrong]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _info(self, body: bytes, name: str, revision: str | None = None) -> None:
        repository = self._repository(name)
        sha = repository.branches.get(revision or "main", revision)
        if sha not in repository.commits:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = [{"rfilename": path} for path in repository.files(str(sha))]
        self._json({"id": name, "sha": sha, "private": repository.private, "siblings": files})

    def _branch(self, body: bytes, name: str, branch: str) -> None:
        self._may_write()
        repository = self._repository(name)
        if branch in repository.branches:
            raise _Refused(409, "Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self._json({}, 201)

    def _tree(self, body: bytes, name: str, revision: str) -> None:
        rows = []
        for path, content in self._repository(name).files(revision).items():
            row: dict[str, Any] = {
                "type": "file",
                "path": path,
                "size": len(content),
                "oid": _git_id(content),
            }
            if _is_large(path):
                row["lfs"] = {
                    "oid": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 130,
                }
            rows.append(row)
        self._json(rows)

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        self._may_write()
        rows = [
            {
                "path": each["path"],
                "uploadMode": "lfs" if _is_large(each["path"]) else "regular",
                "shouldIgnore": False,
            }
            for each in json.loads(body)["files"]
        ]
        self._json({"files": rows})

    def _batch(self, body: bytes, name: str) -> None:
        self._may_write()
        rows = []
        for each in json.loads(body)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.url}/objects/{each['oid']}"},
                "verify": {"href": f"{self.hub.url}/verify"},
            }
            known = each["oid"] in self.hub.objects
            rows.append({**each, **({} if known else {"actions": actions})})
        self._json({"transfer": "basic", "objects": rows})

    def _put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400, "the bytes are not those of the object")
        self.hub.objects[oid] = body
        self._send(200, b"", {})

    def _xet_token(self, body: bytes, name: str, revision: str) -> None:
        self._may_write()
        if not self.hub.has_xet:
            raise _Refused(404, "no such endpoint")
        self._json({"casUrl": f"{self.hub.url}/xet", "exp": int(time.time()) + 3600, "accessToken": "of-xet"})

    def _xorb(self, body: bytes) -> None:
        content = content_of(body)
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self._json({"was_inserted": True})

    def _shard(self, body: bytes) -> None:
        self._json({"type": "result", "result": 1})

    def _verify(self, body: bytes) -> None:
        asked = json.loads(body)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise _Refused(404, "no such object")
        self._json({})

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        self._may_write()
        header, *operations = map(json.loads, body.decode().splitlines())
        files = {}
        for each in operations:
            value = each["value"]
            is_large = each["key"] == "lfsFile"
            files[value["path"]] = (
                self.hub.objects[value["oid"]] if is_large else base64.b64decode(value["content"])
            )
        oid = self._repository(name).commit(revision, files, header["value"]["summary"])
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        content = repository.files(revision).get(path)
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(content).hexdigest() if _is_large(path) else _git_id(content)
        commit = repository.branches.get(revision, revision)
        self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES = [
    ({"POST"}, "/api/repos/create", _Handler._create),
    ({"POST"}, "/api/validate-yaml", _Handler._validate),
    ({"GET"}, f"/api/models/{_NAME}", _Handler._info),
    ({"GET"}, f"/api/models/{_NAME}/revision/(.+)", _Handler._info),
    ({"POST"}, f"/api/models/{_NAME}/branch/(.+)", _Handler._branch),
    ({"GET"}, f"/api/models/{_NAME}/tree/([^/]+)", _Handler._tree),
    ({"POST"}, f"/api/models/{_NAME}/preupload/(.+)", _Handler._preupload),
    ({"POST"}, f"/{_NAME}.git/info/lfs/objects/batch", _Handler._batch),
    ({"PUT"}, "/objects/([0-9a-f]{64})", _Handler._put),
    ({"POST"}, "/verify", _Handler._verify),
    ({"GET"}, f"/api/models/{_NAME}/xet-write-token/(.+)", _Handler._xet_token),
    ({"POST"}, "/xet/v1/xorbs/default/[0-9a-f]{64}", _Handler._xorb),
    ({"POST"}, "/xet/v2/shards", _Handler._shard),
    ({"POST"}, f"/api/models/{_NAME}/commit/(.+)", _Handler._commit),
    ({"GET", "HEAD"}, f"/{_NAME}/resolve/([^/]+)/(.+)", _Handler._resolve),
]


def _is_large(path: str) -> bool:
    return path.endswith(".safetensors")


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve an empty Hub inside the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
