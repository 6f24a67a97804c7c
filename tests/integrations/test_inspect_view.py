"""`inspect view` lists our logs and opens them: answers, reasoning, conversations, scores."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys

import pytest
from loopback import free_port, wait_for

from harness.base.files import read_jsonl, write_jsonl
from harness.cli.main import main
from harness.runs.run import read_run
from harness.runs.run_folder import RunFolder

pytest.importorskip("inspect_ai")
pytestmark = [pytest.mark.integrations, pytest.mark.slow, pytest.mark.filterwarnings("default")]

THOUGHT = "The user asks for a *fact*."
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello, how can I help?"},
]


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory):
    """A run in which the first prompt of a task was answered after a thought, and the second one is a conversation."""
    folder = shutil.copytree(small_run, tmp_path_factory.mktemp("view") / "run")
    for path in folder.glob("variants/*/responses/demo_benign.jsonl"):
        thoughtful, talking, *rest = read_jsonl(path)
        turns = [*TURNS, {"role": "user", "content": talking["prompt"]}]
        text = "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns)
        thoughtful |= {"reasoning": THOUGHT, "reasoning_tokens": 7}
        write_jsonl(path, [thoughtful, talking | {"prompt": text, "messages": turns}, *rest])
    RunFolder(folder).write_manifest()
    return folder


@pytest.fixture(scope="module")
def log(logs):
    (path,) = logs.glob("*_demo-benign-base_*.eval")
    return path


@pytest.fixture
def viewer(logs):
    """The address of `inspect view` on the folder of logs."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "inspect_ai",
        "view",
        "start",
        "--log-dir",
        str(logs),
        "--port",
        str(port),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: answers(port), seconds=60)
            yield f"http://127.0.0.1:{port}/"
        finally:
            server.terminate()


def answers(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_thoughts_and_conversations_arrive_there_and_come_back(run, logs, log, tmp_path):
    from inspect_ai.log import read_eval_log

    samples = {sample.id: sample for sample in read_eval_log(log).samples}
    thoughtful, talking = read_run(run).answers("base", "demo_benign")[:2]
    (thought, text) = samples[thoughtful.id].output.choices[0].message.content
    assert (thought.reasoning, text.text) == (THOUGHT, thoughtful.response)
    asked = [{"role": each.role, "content": each.text} for each in samples[talking.id].input]
    assert asked == [turn._asdict() for turn in talking.messages]
    assert [each.role for each in samples[talking.id].messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    again = tmp_path / "again"
    assert main(["import", *map(str, sorted(logs.glob("*-base_*.eval"))), "-o", str(again)]) == 0
    for task in ("demo_harmful", "demo_benign"):
        mine, theirs = (read_run(folder).answers("base", task) for folder in (run, again))
        assert [each.row() for each in theirs] == [each.row() for each in mine]
    # A conversation's own system turn is no system prompt of the variant.
    assert "system_prompt" not in read_run(again).variants["base"]


def test_what_is_no_text_and_dialogues_of_several_answers_are_one_line(log, tmp_path, capsys):
    from inspect_ai.log import read_eval_log, write_eval_log
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ContentImage

    changed = read_eval_log(log)
    changed.samples[-1].input = [ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AAAA")])]
    write_eval_log(changed, tmp_path / "image.eval")
    changed = read_eval_log(log)
    changed.samples[-1].messages.append(ChatMessageAssistant(content="And more."))
    write_eval_log(changed, tmp_path / "dialogue.eval")
    for name, line in (
        ("image", "input: message 0: expected text, found image"),
        ("dialogue", "expected one answer"),
    ):
        assert main(["import", str(tmp_path / f"{name}.eval"), "-o", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1


@pytest.mark.browser
def test_the_list_shows_each_log_and_a_log_opens_with_answers_reasoning_and_scores(run, log, viewer, browser):
    driver = browser.driver

    def shows(*texts):
        wait_for(
            lambda: all(text in driver.find_element("css selector", "body").text for text in texts),
            seconds=60,
        )

    driver.get(viewer)
    variants = read_run(run).variants
    shows("demo_harmful", "demo_benign", *(f"harness/demo@{name}" for name in variants))
    rows = [link for link in browser.all("a") if ".eval" in (link.get_attribute("href") or "")]
    tasks = len(json.loads((run / "run.json").read_text())["asked"])
    assert len(rows) == tasks * len(variants)

    driver.get(f"{viewer}#/logs/{log.name}")
    shows("demo_benign", "12 samples", "builtin", "REFUSAL_RATE")
    thoughtful, talking = read_run(run).answers("base", "demo_benign")[:2]
    verdicts = {
        verdict.id: verdict.label for verdict in read_run(run).verdicts("base", "demo_benign", "builtin")
    }
    driver.get(f"{viewer}#/logs/{log.name}/samples/sample/{thoughtful.id}/1/")
    # As plain text: what a model wrote is not rendered.
    shows(thoughtful.prompt, "REASONING", THOUGHT, thoughtful.response, verdicts[thoughtful.id])
    driver.get(f"{viewer}#/logs/{log.name}/samples/sample/{talking.id}/1/")
    shows("SYSTEM", "Be brief.", "Hello, how can I help?", talking.response)
