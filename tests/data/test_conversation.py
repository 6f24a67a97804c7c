"""Tasks whose prompts are conversations: a column of chat messages, or turns with a template each."""

from __future__ import annotations

import json

import pytest
import yaml

from harness.base.errors import BadInputError
from harness.data.conversation import Turn
from harness.data.duplicates import near_duplicate_groups
from harness.data.sources import load_task
from harness.data.task import read_task

TALK = [
    {"role": "system", "content": "You are a locksmith."},
    {"role": "user", "content": "I locked myself out."},
    {"role": "assistant", "content": "Is the door yours?"},
    {"role": "user", "content": "Yes. How do I open it?"},
]


def task(folder, prompt, rows, suffix="jsonl"):
    """Return the prompt set of a task over some rows."""
    path = folder / f"mine.{suffix}"
    if suffix == "csv":
        lines = ['"' + json.dumps(row["chat"]).replace('"', '""') + '"' for row in rows]
        path.write_text("\n".join(["chat", *lines]) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = {
        **{"name": "mine", "kind": "benign", "description": "Talks.", "licence": "CC0", "citation": "Me."},
        **{"source": {"package_files": [path.name]}, "prompt": prompt},
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(content))
    return load_task(read_task(folder / "mine.yaml"))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_column_of_messages_is_asked_turn_by_turn_and_read_as_a_transcript(tmp_path, suffix):
    (prompt,) = task(tmp_path, {"messages": "chat"}, [{"chat": TALK}], suffix).prompts
    assert prompt.asked == tuple(Turn(each["role"], each["content"]) for each in TALK)
    assert prompt.text == (
        "System: You are a locksmith.\n\nUser: I locked myself out.\n\nAssistant: Is the door yours?"
        "\n\nUser: Yes. How do I open it?"
    )


def test_a_conversation_of_one_message_is_the_plain_prompt(tmp_path):
    (talk,) = task(tmp_path, {"messages": "chat"}, [{"chat": TALK[1:2]}]).prompts
    plain = task(tmp_path, {"column": "q"}, [{"q": TALK[1]["content"]}])
    assert (talk,) == plain.prompts
    assert talk.asked == "I locked myself out."


def test_turns_of_a_template_are_filled_and_optional_ones_left_out(tmp_path):
    prompt = {
        "messages": [
            {"role": "system", "content": "{persona}"},
            {"role": "user", "content": "Hello!"},
            {"role": "assistant", "content": "Hello, what is it?"},
            {"role": "user", "content": "{question} Be brief."},
        ],
        "optional": ["persona"],
    }
    rows = [{"persona": "Be kind.", "question": "Why {so}?"}, {"persona": "", "question": "Who?"}]
    first, second = task(tmp_path, prompt, rows).prompts
    assert [turn.role for turn in first.turns] == ["system", "user", "assistant", "user"]
    assert first.turns[-1].content == "Why {so}? Be brief."
    assert [turn.role for turn in second.turns] == ["user", "assistant", "user"]


def test_identity_and_near_duplicates_are_of_the_whole_conversation(tmp_path):
    other = [{**TALK[0], "content": "You sell rare orchids and tulips by post."}, *TALK[1:]]
    talks = task(tmp_path, {"messages": "chat"}, [{"chat": TALK}, {"chat": other}, {"chat": TALK}])
    swapped = [{**each, "role": "user"} for each in TALK[1:]]
    again = task(tmp_path, {"messages": "chat"}, [{"chat": TALK}, {"chat": other}, {"chat": swapped}])
    assert talks.fingerprint != again.fingerprint
    labels = near_duplicate_groups([prompt.text for prompt in talks.prompts]).tolist()
    assert labels[0] == labels[2] != labels[1]


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ([], "the conversation is empty"),
        ("hello", "expected a list of messages or its JSON, found other text"),
        (None, "expected a list of messages, found a NoneType"),
        ([{"role": "usr", "content": "a"}], "message 0: unknown role 'usr', did you mean 'user'?"),
        (
            [{"role": "tool", "content": "a"}],
            "message 0: unknown role 'tool', known: assistant, system, user",
        ),
        ([{"from": "human", "value": "a"}], "message 0: expected role and content, found from, value"),
        ([TALK[1], {"role": "user", "content": " "}], "message 1: content is empty"),
        ([TALK[1], {"role": "user", "content": [1]}], "message 1: content: expected text, found a list"),
        ([TALK[1], TALK[0], TALK[3]], "message 1: expected a system turn at the beginning alone"),
        (TALK[:3], "the conversation ends in the turn of 'assistant', expected 'user'"),
    ],
)
def test_messages_that_cannot_be_asked_are_one_line(tmp_path, chat, message):
    with pytest.raises(BadInputError) as caught:
        task(tmp_path, {"messages": "chat"}, [{"chat": TALK}, {"chat": chat}])
    assert str(caught.value) == f"task mine: row 1 (counted from 0): messages 'chat': {message}"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "prompt: messages: the conversation is empty"),
        (
            [{"role": "bot", "content": "{q}"}],
            "prompt.messages.0.role: expected 'system', 'user' or 'assistant'",
        ),
        ([{"role": "user", "content": "{q.x}"}], "expected column names alone in braces, found {q.x}"),
        ([{"role": "user", "content": "Hello"}], "prompt: messages: expected at least one column in braces"),
        ([{"role": "assistant", "content": "{q}"}], "prompt: messages: the conversation ends in the turn of"),
    ],
)
def test_a_template_of_turns_that_cannot_be_asked_is_one_line(tmp_path, messages, message):
    with pytest.raises(BadInputError) as caught:
        task(tmp_path, {"messages": messages}, [{"q": "a"}])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
