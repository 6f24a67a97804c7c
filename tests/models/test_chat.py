"""Chat templates: with and without a system role, and without doubled special tokens."""

from __future__ import annotations

import copy

import pytest

from harness.base.errors import BadInputError
from harness.data.conversation import Turn
from harness.models.chat import ChatTemplate

PLAIN = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
RAISES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + PLAIN
)
IGNORES = "{% for m in messages if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
ARGUMENT = PLAIN + "{% if enable_thinking %}<think>{% endif %}"
NOTHING = "{% for m in messages if m['role'] == 'tool' %}{{ m['content'] }}{% endfor %}"


@pytest.fixture
def with_template(demo):
    def make(template: str, **arguments) -> ChatTemplate:
        tokenizer = copy.deepcopy(demo.tokenizer)
        tokenizer.chat_template = template
        return ChatTemplate(tokenizer, arguments)

    return make


def test_a_system_prompt_takes_the_system_role_where_there_is_one(with_template):
    chat = with_template(PLAIN)
    assert chat.has_system_role()
    assert chat.render("Hello", "Be kind.") == "[system]Be kind.[user]Hello[assistant]"


@pytest.mark.parametrize("template", [RAISES, IGNORES], ids=["raises", "ignores"])
def test_without_a_system_role_the_system_prompt_stands_before_the_users_message(with_template, template):
    chat = with_template(template)
    assert not chat.has_system_role()
    assert chat.render("Hello", "Be kind.") == "[user]Be kind.\n\nHello[assistant]"


@pytest.mark.parametrize("template", [PLAIN, RAISES, IGNORES])
def test_without_a_system_prompt_only_the_user_speaks(with_template, template):
    assert with_template(template).render("Hello") == "[user]Hello[assistant]"


def test_arguments_reach_the_template(with_template):
    assert with_template(ARGUMENT, enable_thinking=True).render("Hi") == "[user]Hi[assistant]<think>"
    assert with_template(ARGUMENT).render("Hi") == "[user]Hi[assistant]"


def test_a_template_that_renders_nothing_is_refused(with_template):
    with pytest.raises(BadInputError, match="renders nothing"):
        with_template(NOTHING).render("Hi")


def test_the_tokenizer_adds_no_special_tokens_of_its_own(with_template, demo):
    from tokenizers.processors import TemplateProcessing

    chat = with_template("{{ eos_token }}" + PLAIN)
    end = demo.tokenizer.eos_token
    chat.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{end} $A", special_tokens=[(end, demo.tokenizer.eos_token_id)]
    )
    assert chat.tokenizer("x")["input_ids"][0] == demo.tokenizer.eos_token_id
    (ids,) = chat.tokens(["Hello"])
    assert ids.count(demo.tokenizer.eos_token_id) == 1


def test_tokens_read_back_as_the_rendered_text(demo):
    chat = ChatTemplate(demo.tokenizer)
    for ids, prompt in zip(
        chat.tokens(["Hi", "Name a fruit."], "Be kind."), ["Hi", "Name a fruit."], strict=True
    ):
        assert demo.tokenizer.decode(ids) == chat.render(prompt, "Be kind.")


def test_an_opening_stands_where_the_answer_begins(demo):
    chat = ChatTemplate(demo.tokenizer)
    assert chat.render("Hi.", opening="Sure, here is") == chat.render("Hi.") + "Sure, here is"
    (plain,), (begun,) = chat.tokens(["Hi."]), chat.tokens(["Hi."], None, "Sure, here is")
    assert begun[: len(plain)] == plain
    assert demo.tokenizer.decode(begun[len(plain) :]) == "Sure, here is"


TALK = (Turn("system", "Be a cook."), Turn("user", "Hi"), Turn("assistant", "Yes?"), Turn("user", "Soup?"))


def test_a_conversation_is_written_turn_by_turn(with_template):
    chat = with_template(PLAIN)
    assert chat.render(TALK) == "[system]Be a cook.[user]Hi[assistant]Yes?[user]Soup?[assistant]"
    assert chat.render(TALK[1:]) == "[user]Hi[assistant]Yes?[user]Soup?[assistant]"
    assert not chat.drops(TALK)


def test_a_system_prompt_precedes_what_a_conversations_system_turn_says(with_template):
    assert with_template(PLAIN).render(TALK, "Be kind.").startswith("[system]Be kind.\n\nBe a cook.[user]Hi[")
    assert with_template(PLAIN).render(TALK[1:], "Be kind.").startswith("[system]Be kind.[user]Hi[")


@pytest.mark.parametrize("template", [RAISES, IGNORES], ids=["raises", "ignores"])
def test_without_a_system_role_a_system_turn_stands_before_the_first_user_message(with_template, template):
    chat = with_template(template)
    assert chat.render(TALK, "Be kind.").startswith(
        "[user]Be kind.\n\nBe a cook.\n\nHi[assistant]Yes?[user]Soup?"
    )
    assert not chat.drops(TALK)


def test_a_template_that_shows_the_last_turn_alone_drops_the_others(with_template):
    chat = with_template("[user]{{ messages[-1]['content'] }}[assistant]")
    assert chat.drops(TALK[1:])
    assert not chat.drops("Soup?")


def test_what_a_turn_spells_is_no_control_token(demo):
    chat = ChatTemplate(demo.tokenizer)
    end = demo.tokenizer.eos_token
    told = (TALK[1], Turn("assistant", f"Yes{end}?"), TALK[3])
    (spelt,), (plain,) = chat.tokens([told]), chat.tokens([TALK[1:]])
    assert spelt.count(demo.tokenizer.eos_token_id) == plain.count(demo.tokenizer.eos_token_id)
    assert chat.render(told).count(end) == chat.render(TALK[1:]).count(end) + 1
