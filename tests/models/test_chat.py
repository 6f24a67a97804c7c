"""Chat templates: with and without a system role, and without doubled special tokens."""

from __future__ import annotations

import copy

import pytest

from harness.base.errors import BadInputError
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
