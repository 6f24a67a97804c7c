"""What chat templates can make of thinking, and where answers begin, on templates in the forms of published ones."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.base.errors import BadInputError
from harness.models.chat import ChatTemplate
from harness.models.thoughts import Limit, Reader, shortened

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
BEGIN = "{% if add_generation_prompt %}<|im_start|>assistant\n"
CHATML = TURNS + BEGIN + "{% endif %}"
ADDED = [
    *(
        "<think>",
        "</think>",
        "<seed:think>",
        "</seed:think>",
        "[THINK]",
        "[/THINK]",
        "<|channel>",
        "<channel|>",
    ),
    *("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<thinking>", "</thinking>"),
]
SPECIAL = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"]


@dataclass(frozen=True)
class Form:
    """A template, what it can, and pairs of what a model may write and what that is: reasoning and answer.

    `reasoning` is None where the whole text is the answer, and an answer None where it never began.
    """

    template: str
    switch: str | None = None
    state: str = "none"
    effort: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)
    schema: dict[str, Any] | None = None
    mode: str = "auto"
    texts: tuple[tuple[str, str | None, str | None], ...] = ()


THINK = (
    ("<think>\nEasy.\n</think>\n\nParis.", "Easy.", "Paris."),
    ("<think>\n\n</think>\n\nParis.", "", "Paris."),
    ("<think>\nEasy, bec", "Easy, bec", None),
    ("<think>\nEasy.\n</think>\n\n", "Easy.", None),
    ("<think>\nI close `</think>`.\n</think>\n\nUse `<think>`.", "I close `</think>`.", "Use `<think>`."),
    ("Paris.", None, "Paris."),
)
OPENED = (
    ("Easy.\n</think>\n\nParis.", "Easy.", "Paris."),
    ("Easy, bec", "Easy, bec", None),
    ("\n</think>\n\nParis.", "", "Paris."),
    ("I write `</think>` to end.\n</think>\n\nParis.", "I write `</think>` to end.", "Paris."),
)
SCHEMA = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "content": {"close_pattern": r"\s*<\|im_end\|>", "content": "text"},
    },
}
HARMONY = (
    "<|start|>system<|message|>Reasoning: {{ reasoning_effort or 'medium' }}\n"
    "# Valid channels: analysis, commentary, final.<|end|>"
    "{% for m in messages %}<|start|>{{ m.role }}"
    "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|start|>assistant<|channel|>final<|message|>"
EMPTY = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"

FORMS = {
    "no thinking": Form(CHATML, texts=(("Paris.", None, "Paris."), ("<b>Paris</b>", None, "<b>Paris</b>"))),
    "thinks unless told not to": Form(
        TURNS + BEGIN + EMPTY + "{% endif %}", "enable_thinking", "off", texts=(("Paris.", None, "Paris."),)
    ),
    "thinks unless told not to, told to": Form(
        TURNS + BEGIN + EMPTY + "{% endif %}", "enable_thinking", "on", mode="on", texts=THINK
    ),
    "thinks when told to": Form(
        TURNS + BEGIN + "{{ '<think>\n' if thinking else '</think>\n' }}{% endif %}",
        "thinking",
        "on",
        mode="on",
        texts=OPENED,
    ),
    "a mode": Form(
        TURNS + BEGIN + "{{ '<think>' if thinking_mode == 'thinking' else '</think>' }}{% endif %}",
        "thinking_mode",
        "off",
        texts=(("Paris.", None, "Paris."),),
    ),
    "a budget": Form(
        TURNS + BEGIN + "{% if thinking_budget == 0 %}<seed:think></seed:think>{% endif %}{% endif %}",
        "thinking_budget",
        "on",
        mode="on",
        texts=(("<seed:think>Easy.</seed:think>Paris.", "Easy.", "Paris."), ("<seed:think>Ea", "Ea", None)),
    ),
    "always opened": Form(TURNS + BEGIN + "<think>\n{% endif %}", state="always", texts=OPENED),
    "always, opened by the model": Form(
        CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}"),
        state="always",
        texts=THINK,
    ),
    "bracketed": Form(
        "{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}{# [THINK] #}",
        state="always",
        texts=(("[THINK]Easy.[/THINK]Paris.", "Easy.", "Paris."), ("[THINK]Easy.[/THI", "Easy.", None)),
    ),
    "thinking tags": Form(
        CHATML + "{# <thinking> #}",
        state="always",
        texts=(("<thinking>Easy.</thinking>Paris.", "Easy.", "Paris."),),
    ),
    "channels": Form(
        HARMONY,
        state="always",
        effort=True,
        texts=(
            (f"{ANALYSIS}Easy.<|end|>{FINAL}Paris.<|return|>", "Easy.", "Paris."),
            (f"{ANALYSIS}Say <|channel|>.<|end|>{FINAL}Paris.<|return|>", "Say <|channel|>.", "Paris."),
            (f"{ANALYSIS}Easy, bec", "Easy, bec", None),
            (f"{ANALYSIS}Easy.<|end|>{FINAL[:-11]}", "Easy.", None),
            ("<|channel|>final<|message|>Paris.<|return|>", "", "Paris."),
        ),
    ),
    "a channel of thought": Form(
        TURNS + BEGIN + "{{ '<|channel>thought\n<channel|>' if enable_thinking is false }}{% endif %}",
        "enable_thinking",
        "on",
        mode="on",
        texts=(
            ("<|channel>thought\nEasy.<channel|>Paris.", "Easy.", "Paris."),
            ("<|channel>thought\nEas", "Eas", None),
        ),
    ),
    "effort none": Form(
        TURNS
        + BEGIN
        + "{% if reasoning_effort == 'none' %}<think></think>{% else %}<think>{% endif %}{% endif %}",
        "reasoning_effort",
        "off",
        texts=(("Paris.", None, "Paris."),),
    ),
    "a response schema": Form(CHATML, state="always", schema=SCHEMA, texts=(*THINK[:3], THINK[5])),
    "a response schema, opened": Form(
        TURNS + BEGIN + "<think>\n{% endif %}", state="always", schema=SCHEMA, texts=OPENED[:3]
    ),
}


def chat_of(demo, form, mode=None):
    tokenizer = copy.deepcopy(demo.tokenizer)
    tokenizer.add_tokens([token for token in ADDED if token not in SPECIAL])
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = form.template
    tokenizer.response_template = form.schema
    return ChatTemplate.of_run(tokenizer, form.arguments, mode or form.mode, 100)


def tokens_of(chat, text):
    return chat.tokenizer(text + "<|im_end|>", add_special_tokens=False)["input_ids"]


def ends_of(chat):
    return chat.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|return|>"])


CASES = [(name, text) for name, form in FORMS.items() for text in form.texts]


@pytest.mark.parametrize("name", FORMS)
def test_a_template_says_what_it_can(demo, name):
    form, chat = FORMS[name], chat_of(demo, FORMS[name])
    switch = chat.abilities.switch
    assert (switch and switch.name) == form.switch
    assert chat.thinking.state == form.state
    assert chat.abilities.effort == form.effort or form.switch == "reasoning_effort"
    assert (chat.thinking.tokens is None) == (form.state in ("off", "none"))


@pytest.mark.parametrize(("name", "text"), CASES, ids=lambda part: str(part)[:40])
def test_an_answer_is_told_from_the_reasoning_before_it(demo, name, text):
    written, reasoning, answer = text
    chat = chat_of(demo, FORMS[name])
    tokens = tokens_of(chat, written)
    reading = Reader(chat, ends_of(chat)).read(tokens)
    assert (reading.reasoning, reading.response or None) == (reasoning, answer)
    assert (reading.at is None) == (answer is None)
    if answer is not None:
        rest = chat.tokenizer.decode(tokens[reading.at :], skip_special_tokens=True)
        assert rest.strip() == answer
        # Its first token holds its first character.
        assert chat.tokenizer.decode(tokens[reading.at]).strip()[:1] == answer[:1]


@pytest.mark.parametrize(("name", "text"), CASES, ids=lambda part: str(part)[:40])
def test_a_limit_finds_the_beginning_that_the_whole_text_has(demo, name, text):
    written, _, answer = text
    chat = chat_of(demo, FORMS[name])
    reader, tokens = Reader(chat, ends_of(chat)), tokens_of(chat, written)
    at = reader.read(tokens).at
    kept = shortened(tokens, Limit(reader, 100, 2))
    assert kept == (tokens if answer is None else tokens[: at + 2])
    # An answer that has not begun within the budget is none.
    in_time = at is not None and at < 2
    assert len(shortened(tokens, Limit(reader, 2, 100))) == (len(tokens) if in_time else 2)


def test_a_thought_within_an_answer_is_no_part_of_it(demo):
    chat = chat_of(demo, FORMS["no thinking"])
    tokens = tokens_of(chat, "Let me see.\n<think>\nI cannot.\n</think>\nParis.")
    reading = Reader(chat, ends_of(chat)).read(tokens)
    assert reading == ("Let me see.\n\nParis.", "I cannot.", 0)


@pytest.mark.parametrize(("written", "expected"), [("", ("", None, 0)), ("<|end|>", ("", None, 0))])
def test_an_empty_answer_is_an_answer(demo, written, expected):
    chat = chat_of(demo, FORMS["no thinking"])
    assert Reader(chat, ends_of(chat)).read(tokens_of(chat, written)) == expected


def test_special_tokens_inside_an_answer_are_left_out(demo):
    chat = chat_of(demo, FORMS["always, opened by the model"])
    reading = Reader(chat, ends_of(chat)).read(tokens_of(chat, "<think>Easy.</think>Par<|end|>is."))
    assert (reading.response, reading.reasoning) == ("Paris.", "Easy.")


def test_what_a_schema_cannot_read_is_read_by_the_table(demo):
    broken = {**SCHEMA["fields"], "tool_calls": {"open": "<tool>", "close": "</tool>", "content": "json"}}
    form = Form(CHATML, schema={**SCHEMA, "fields": broken})
    chat = chat_of(demo, form)
    tokens = tokens_of(chat, "<think>Easy.</think>Paris. <tool>{nothing</tool>")
    reading = Reader(chat, ends_of(chat)).read(tokens)
    assert (reading.response, reading.reasoning) == ("Paris. <tool>{nothing</tool>", "Easy.")


def test_what_a_prompt_says_of_markers_does_not_matter(demo):
    chat = chat_of(demo, FORMS["always, opened by the model"])
    asked = "What does <think> mean? <|im_start|>assistant\n<think>"
    assert chat.opened() == "<|im_end|>\n<|im_start|>assistant\n"
    assert chat.render(asked).endswith(chat.opened())


@pytest.mark.parametrize("name", ["thinks unless told not to", "effort none", "a mode"])
def test_switched_off_is_what_the_model_reads(demo, name):
    auto, on = chat_of(demo, FORMS[name]), chat_of(demo, FORMS[name], "on")
    assert chat_of(demo, FORMS[name], "off").tokens(["Hi"]) == auto.tokens(["Hi"]) != on.tokens(["Hi"])
    assert auto.thinking.in_words().startswith(f"switched off ({FORMS[name].switch} = ")
    assert on.thinking.in_words().endswith("up to 100 tokens of reasoning before each answer")


def test_a_model_that_cannot_be_switched_off_is_asked_to_think_little(demo):
    chat = chat_of(demo, FORMS["channels"])
    assert chat.arguments == {"reasoning_effort": "low"}
    assert "Reasoning: low" in chat.render("Hi")
    assert "Reasoning: medium" in chat_of(demo, FORMS["channels"], "on").render("Hi")
    given = Form(HARMONY, arguments={"reasoning_effort": "high"})
    assert "Reasoning: high" in chat_of(demo, given).render("Hi")


def test_arguments_in_the_settings_decide(demo):
    template = FORMS["thinks unless told not to"].template
    assert chat_of(demo, Form(template, arguments={"enable_thinking": True})).thinking.state == "on"
    assert chat_of(demo, Form(template, arguments={"enable_thinking": False})).thinking.state == "off"


def test_a_model_that_opens_its_thoughts_by_itself_is_given_a_budget_when_asked_and_none_by_itself(demo):
    tokenizer = chat_of(demo, FORMS["no thinking"]).tokenizer
    assert ChatTemplate.of_run(tokenizer, {}, "auto", 100).thinking.tokens is None
    asked = ChatTemplate.of_run(tokenizer, {}, "on", 100)
    assert (asked.thinking.state, asked.thinking.tokens) == ("on", 100)
    assert "`--thinking on` gives it a budget" in asked.abilities.in_words()
    with pytest.raises(BadInputError, match="the chat template knows of no thinking"):
        ChatTemplate.of_run(demo.tokenizer, {}, "on", 100)


@pytest.mark.parametrize(
    ("name", "arguments", "mode", "tokens", "expected"),
    [
        ("always opened", {}, "off", 100, "thinking = off: the chat template has no switch for it"),
        ("always opened", {}, "auto", 0, r"reasoning_tokens = 0: thinking cannot be switched off"),
        ("a mode", {}, "on", 0, r"reasoning_tokens = 0: thinking is on; expected at least 1 token"),
        (
            "a mode",
            {"thinking_mode": "chat"},
            "on",
            9,
            "chat_template_kwargs has thinking_mode = chat; name one",
        ),
    ],
)
def test_what_cannot_be_is_one_line(demo, name, arguments, mode, tokens, expected):
    chat = chat_of(demo, FORMS[name])
    with pytest.raises(BadInputError, match=expected) as raised:
        ChatTemplate.of_run(chat.tokenizer, arguments, mode, tokens)
    assert "\n" not in str(raised.value)
