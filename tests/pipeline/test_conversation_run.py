"""A run whose prompts are conversations: asked, trained on, judged, shown and exported turn by turn."""

from __future__ import annotations

import json

import pytest
import yaml

from harness.base.content import content_folder
from harness.base.files import read_jsonl
from harness.cli.main import main
from harness.data.conversation import asked_in
from harness.judges.base import JUDGES, Verdict
from harness.models.chat import ChatTemplate
from harness.pipeline import paired
from harness.report.html import render_html
from harness.runs.run import read_run

BEFORE = [
    {"role": "system", "content": "You talk to a visitor of a market."},
    {"role": "user", "content": "Hello! I have a request."},
    {"role": "assistant", "content": "Hello! What is it?"},
]


@pytest.fixture(scope="module")
def include(tmp_path_factory):
    """The demo's prompts, each as the last turn of a conversation."""
    folder = tmp_path_factory.mktemp("include")
    for kind in ("harmful", "benign"):
        rows = read_jsonl(content_folder("tasks") / "data" / f"demo_{kind}.jsonl")
        talks = [
            {
                "id": row["id"],
                "split": row["split"],
                "chat": [*BEFORE, {"role": "user", "content": row["prompt"]}],
            }
            for row in rows
        ]
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
        task = {
            **{
                "name": f"talk_{kind}",
                "kind": kind,
                "description": "Talks.",
                "licence": "CC0",
                "citation": "Me.",
            },
            **{"source": {"package_files": [f"{kind}.jsonl"]}, "prompt": {"messages": "chat"}},
            **{"id_column": "id", "split_column": "split", "max_new_tokens": 16},
        }
        (folder / f"talk_{kind}.yaml").write_text(yaml.safe_dump(task))
    group = {"name": "talks", "description": "Talks.", "tasks": ["talk_harmful", "talk_benign"]}
    (folder / "talks.yaml").write_text(yaml.safe_dump(group))
    return folder


@pytest.fixture(scope="module")
def run(include, tmp_path_factory):
    folder = tmp_path_factory.mktemp("talks") / "run"
    command = [
        *(
            "run",
            "--include",
            str(include),
            "--intervention",
            "unsafe_experts",
            "--baselines",
            "system_prompt",
        ),
        *(
            "--tasks",
            "talks",
            "--capability",
            "none",
            "--limit",
            "8",
            "--output",
            str(folder),
        ),
        *("--set", "evaluation.drift_answers=4", "--set", "training.epochs=1", "--draws", "1"),
    ]
    assert main(command) == 0
    return folder


@pytest.mark.slow
def test_the_groups_that_were_named_are_recorded_with_their_tasks(run):
    assert read_run(run).record.groups == {"talks": ["talk_harmful", "talk_benign"]}


@pytest.mark.slow
def test_every_turn_is_asked_and_kept(run, demo):
    chat = ChatTemplate(demo.tokenizer)
    (row, *_) = read_jsonl(run / "variants/base/responses/talk_harmful.jsonl")
    assert row["messages"][:3] == BEFORE
    assert row["prompt"].startswith("System: You talk to a visitor of a market.\n\nUser: Hello!")
    assert row["prompt"].endswith(f"User: {row['messages'][-1]['content']}")
    assert row["prompt_tokens"] == len(chat.tokens([asked_in(row)])[0])
    (answer, *_) = read_run(run).answers("base", "talk_harmful")
    assert [turn.role for turn in answer.messages] == ["system", "user", "assistant", "user"]


@pytest.mark.slow
def test_training_and_exports_have_every_turn(run, tmp_path):
    examples = read_jsonl(run / "training/examples.jsonl")
    assert {example["aim"] for example in examples} == {"refuse", "retain"}
    assert all(example["messages"][:3] == BEFORE for example in examples)
    assert main(["export", str(run), str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").glob("sft_dataset_*.jsonl")
    (exported, *_) = read_jsonl(file)
    assert [turn["role"] for turn in exported["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


@pytest.mark.slow
def test_the_report_shows_the_turns(run):
    page = render_html(run, read_run(run).summary)
    assert "Assistant: Hello! What is it?" in page


@pytest.mark.slow
def test_the_paired_score_lets_refusals_follow_the_whole_conversation(include, tmp_path, monkeypatch):
    asked, use = [], paired._use_of_refusals

    class Content(type(JUDGES.get("builtin")())):
        """Takes every answer for compliance: the demo says little that makes sense in a conversation."""

        name = "content"

        def judge(self, id, prompt, response, *, truncated=False):
            return Verdict(id, "compliance")

    def watched(session, prompts, refusals):
        asked.extend(prompts)
        return use(session, prompts, refusals)

    monkeypatch.setitem(JUDGES._entries, "content", Content)
    monkeypatch.setattr(paired, "_use_of_refusals", watched)
    command = ("select", "--include", str(include), "--tasks", "talks", "--limit", "8", "--method", "paired")
    assert main([*command, "--judge", "content", "--output", str(tmp_path / "run")]) == 0
    assert len(asked) == 8
    assert all([turn.role for turn in turns] == ["system", "user", "assistant", "user"] for turns in asked)
