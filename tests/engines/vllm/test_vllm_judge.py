"""The judges that ask a language model get their verdicts from a server of vLLM's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from loopback import free_port

from harness.judges.base import JUDGES, judge_all
from harness.models.load import resolve_model

ROWS = [
    {"id": "a", "prompt": "Name three fruits", "response": "Apple, pear, plum.", "finish_reason": "stop"},
    {
        "id": "b",
        "prompt": "Name three fruits",
        "response": "I can't help with that.",
        "finish_reason": "stop",
    },
]


@pytest.fixture
def server(tmp_path):
    port = free_port()
    # What `vllm serve` does; that command looks for a package `vllm`, which the CPU build is not called.
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(resolve_model("demo").path),
    ]
    command += ["--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager"]
    # The demo would fill the space between two tokens for ever.
    command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = tmp_path / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        until = time.monotonic() + 180
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as found:
            return found.status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_verdicts_come_in_the_json_that_was_asked_for(server, tmp_path, monkeypatch):
    """From a model that has never seen any JSON: what it says of the answers means nothing."""
    settings = {"BASE_URL": server, "MODEL": "judge", "CACHE": str(tmp_path / "cache")}
    for name, value in settings.items():
        monkeypatch.setenv(f"HARNESS_LLM_{name}", value)
    found = judge_all(JUDGES.get("llm")(), ROWS)
    assert [verdict.label for verdict in found if verdict.label is None] == [], found
    assert {verdict.label for verdict in found} <= {"refusal", "compliance"}
