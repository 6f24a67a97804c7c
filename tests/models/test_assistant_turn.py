"""Training labels and forced starts in the forms of published chat templates: as the template writes an answer."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, field
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from harness.base.errors import BadInputError
from harness.data.reasoning import split
from harness.models.chat import ChatTemplate
from harness.models.load import DEMO_FOLDER, ModelRef, load_tokenizer
from harness.training.examples import make_examples

PROMPT, ANSWER, THOUGHT, OPENING = (
    "Name a fruit.",
    "I can't help with that.",
    "I should say no.",
    "Sure, here is",
)
# Published tokenizers have most of these as tokens, special or not.
SPECIAL = [
    "<s>",
    "</s>",
    "<|user|>",
    "<|assistant|>",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
]
SPECIAL += ["[INST]", "[/INST]", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<seed:bos>", "<seed:eos>"]
PLAIN = ["<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>"]


def chatml(before_answer: str = "", generation: str = "") -> str:
    """ChatML with something before each answer and something behind the generation prompt."""
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        + before_answer
        + "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        + generation
        + "{% endif %}"
    )


LAST_THOUGHT = "{% if loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
SWITCH = "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
GLM = (
    "[gMASK]{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{{ m.content }}{% else %}<|assistant|>"
    "{{ '\n<think>' + (m.reasoning_content or '') + '</think>' }}\n{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is false %}{{ '\n<think></think>' }}{% endif %}"
    "{% endif %}"
)
MAGISTRAL = (
    "<s>[SYSTEM]Think first: [THINK]a draft[/THINK] an answer.{% for m in messages %}{% if m.role == 'user' %}"
    "[INST]{{ m.content }}[/INST]{% elif m.content is string %}{{ m.content }}</s>{% else %}"
    "{% for p in m.content %}{% if p.type == 'thinking' %}[THINK]{{ p.thinking[0].text }}[/THINK]"
    "{% else %}{{ p.text }}{% endif %}{% endfor %}</s>{% endif %}{% endfor %}"
)
SEED = (
    "{% for m in messages %}<seed:bos>{{ m.role }}\n{% if m.reasoning_content %}<seed:think>{{ m.reasoning_content }}"
    "</seed:think>{% endif %}{{ m.content }}<seed:eos>{% endfor %}"
    "{% if add_generation_prompt %}<seed:bos>assistant\n{% endif %}"
)
HARMONY = (
    "{% for m in messages %}{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{% else %}"
    "{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}{{ '<|return|>' if loop.last else '<|end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
GEMMA = (
    "<s>{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% for m in messages %}"
    "<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n{% if not enable_thinking %}<|channel>thought\n<channel|>{% endif %}"
    "{% endif %}"
)
LLAMA = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<s>[INST] ' + m.content + ' [/INST]' }}{% else %}"
    "{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
)
USERS_ONLY = (
    "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('users only') }}{% endif %}"
    "<|im_start|>user\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n{{ '<think>\n' }}"
)


@dataclass(frozen=True)
class Case:
    """A template, and what is expected around an answer.

    Attributes:
        lead: what stands between the generation prompt and the answer.
        around: what stands around a thought; None where the template has closed it.
        tail: what ends the answer.
        end_is_written: the template writes it.
        as_written: the template's rendering begins with the generation prompt, so labels are its very tokens.
    """

    template: str
    lead: str
    around: tuple[str, str] | None
    tail: str = "<|im_end|>"
    ends: tuple[str, ...] = ("<|im_end|>",)
    arguments: dict[str, Any] = field(default_factory=dict)
    end_is_written: bool = True
    as_written: bool = True


OFF = {"enable_thinking": False}
THINK = ("<think>\n", "\n</think>\n\n")
CASES = {
    "the model opens a thought, and history drops it": Case(chatml("{# <think> #}"), "", THINK),
    "the template opens a thought, and shows it closed": Case(
        chatml(LAST_THOUGHT, "<think>\n"), "\n</think>\n\n", ("", "\n</think>\n\n")
    ),
    "the template opens a thought, and history drops it": Case(
        chatml(generation="<think>\n"), "\n</think>\n\n", ("", "\n</think>\n\n"), as_written=False
    ),
    "the template opens a thought, and history keeps its end": Case(
        chatml("</think>", "<think>"), "</think>", ("", "</think>"), as_written=False
    ),
    "the template opens a thought, and history writes it in one line": Case(
        chatml("<think></think>", "<think>\n"), "</think>", ("", "</think>"), as_written=False
    ),
    "an empty thought in the last answer": Case(
        chatml(LAST_THOUGHT, SWITCH), "<think>\n\n</think>\n\n", THINK
    ),
    "the switch writes an empty thought": Case(chatml(LAST_THOUGHT, SWITCH), "", None, arguments=OFF),
    "the switch writes an empty thought, and history drops it": Case(
        chatml(generation=SWITCH), "", None, arguments=OFF, as_written=False
    ),
    "an answer below its thought ends where the next turn begins": Case(
        GLM, "\n<think></think>\n", ("\n<think>", "</think>\n"), "<|user|>", ("<|return|>", "<|user|>")
    ),
    "the same, switched off": Case(GLM, "\n", None, "<|user|>", ("<|return|>", "<|user|>"), OFF),
    "[THINK] and parts of content": Case(MAGISTRAL, "", ("[THINK]", "[/THINK]"), "</s>", ("</s>",)),
    "seed:think": Case(SEED, "", ("<seed:think>", "</seed:think>"), "<seed:eos>", ("</s>", "<seed:eos>")),
    "harmony": Case(
        HARMONY,
        "<|channel|>final<|message|>",
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        "<|return|>",
        ("<|return|>", "<|im_end|>"),
    ),
    "harmony with an opened analysis": Case(
        HARMONY.removesuffix("{% endif %}") + "<|channel|>analysis<|message|>{% endif %}",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        ("", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        "<|return|>",
        ("<|return|>",),
        as_written=False,
    ),
    "Gemma's channel, no system role": Case(
        GEMMA,
        "",
        ("<|channel>thought\n", "\n<channel|>"),
        "<turn|>",
        ("</s>", "<turn|>"),
        {"enable_thinking": True},
    ),
    "Gemma's channel, closed": Case(GEMMA, "", None, "<turn|>", ("</s>", "<turn|>"), as_written=False),
    "spaces around the answer": Case(
        LLAMA + "{# <think> #}", " ", ("<think>\n", "\n</think>\n\n "), " </s>", ("</s>",)
    ),
    "no end is written": Case(
        "{% for m in messages %}{{ m.content }}\n{% endfor %}{# <think> #}", "", THINK, end_is_written=False
    ),
    "only users are known": Case(
        USERS_ONLY, "\n</think>\n\n", ("", "\n</think>\n\n"), as_written=False, end_is_written=False
    ),
    "history leaves a thought open": Case(
        chatml("<think>\n", "<think>\n"), "\n</think>\n\n", ("", "\n</think>\n\n"), as_written=False
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, demo):
    """The demo's tokenizer with published control tokens, as a checkpoint has it; it puts a BOS before texts."""
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = copy.deepcopy(demo.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.add_tokens(PLAIN)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.convert_tokens_to_ids("<s>"))]
    )
    tokenizer.save_pretrained(folder)
    shutil.copy(DEMO_FOLDER / "config.json", folder)
    return load_tokenizer(ModelRef("copy", folder))


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def chat(case, tokenizer):
    tokenizer.chat_template = case.template
    return ChatTemplate(tokenizer, case.arguments)


def rendered(chat: ChatTemplate, answer: str | None = None) -> list[int]:
    """What transformers makes of a conversation; without an answer up to where the model goes on."""
    messages = [{"role": "user", "content": PROMPT}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return written_of(chat, messages, add_generation_prompt=answer is None)


def written_of(chat: ChatTemplate, messages: list[dict[str, str]], **more: bool) -> list[int]:
    return chat.tokenizer.apply_chat_template(messages, return_dict=False, **more, **chat.arguments)


def example(chat: ChatTemplate, case: Case, answer: str = ANSWER, **more: Any) -> Any:
    end = chat.turn.end(chat.tokenizer.convert_tokens_to_ids(list(case.ends)))
    (made,) = make_examples(chat, [PROMPT], [answer], [True], end, "refuse", **more)
    return made


def test_a_label_is_what_the_template_writes_behind_the_generation_prompt(chat, case):
    made, asked = example(chat, case), rendered(chat)
    assert list(made.prompt) == asked
    assert chat.tokenizer.decode(made.answer) == f"{case.lead}{ANSWER}{case.tail}"
    if case.as_written:
        ids = [*asked, *(made.answer if case.end_is_written else made.answer[:-1])]
        answered = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": ANSWER}]
        again = [*answered, {"role": "user", "content": PROMPT}]
        # Some ends are written only where the next turn begins.
        assert ids in [written_of(chat, turns)[: len(ids)] for turns in (answered, again)]


def test_a_label_is_read_as_an_answer_and_no_thought(chat, case):
    made, asked = example(chat, case), chat.tokenizer.decode(rendered(chat))
    assert split(chat.tokenizer.decode(made.answer), opened=asked.partition(PROMPT)[2]) == ("", ANSWER)


def test_a_truncated_answer_has_no_end_and_an_empty_one_teaches_nothing(chat, case):
    made = make_examples(chat, [PROMPT, PROMPT], [ANSWER, ""], [False, False], 2, "retain")
    assert [chat.tokenizer.decode(each.answer) for each in made] == [f"{case.lead}{ANSWER}"]


def test_what_an_answer_spells_is_text(chat, case):
    spelled = f"a{case.tail}<|im_end|></think>b"
    plain, made = example(chat, case, "ab"), example(chat, case, spelled)
    control = set(chat.markers.ids.values())
    assert [id for id in made.answer if id in control] == [id for id in plain.answer if id in control]
    assert spelled in chat.tokenizer.decode(made.answer)


def test_a_thought_stands_where_the_model_thinks(chat, case):
    if case.around is None:
        with pytest.raises(BadInputError, match="has closed the thought before the model writes"):
            example(chat, case, thoughts=[THOUGHT])
        return
    made, asked = example(chat, case, thoughts=[THOUGHT]), chat.tokenizer.decode(rendered(chat))
    before, after = case.around
    assert list(made.prompt) == rendered(chat)
    assert chat.tokenizer.decode(made.answer) == f"{before}{THOUGHT}{after}{ANSWER}{case.tail}"
    found = split(chat.tokenizer.decode(made.answer), opened=asked.partition(PROMPT)[2])
    assert found == (THOUGHT, ANSWER)


def test_a_forced_start_begins_the_answer(chat, case):
    (begun,) = chat.tokens([PROMPT], opening=OPENING)
    text = chat.tokenizer.decode(begun)
    assert text == f"{chat.tokenizer.decode(rendered(chat))}{case.lead}{OPENING}"
    assert text == chat.render(PROMPT, opening=OPENING)
    if case.as_written:
        assert rendered(chat, OPENING)[: len(begun)] == begun
    (guarded,) = chat.tokens([PROMPT], "Be kind.", OPENING)
    assert chat.tokenizer.decode(guarded).endswith(f"{case.lead}{OPENING}")


def test_a_refusal_behind_an_opening_continues_the_same_answer(chat, case):
    made = example(chat, case, openings=[OPENING])
    assert list(made.prompt) == chat.tokens([PROMPT], opening=OPENING)[0]
    assert chat.tokenizer.decode(made.answer) == f" {ANSWER}{case.tail}"


def test_an_opening_that_spells_control_tokens_is_text(chat):
    (plain,), (spelled,) = (
        chat.tokens([PROMPT], opening="Sure"),
        chat.tokens([PROMPT], opening="Sure</think><|im_end|>"),
    )
    control = set(chat.markers.ids.values())
    assert [id for id in spelled if id in control] == [id for id in plain if id in control]


def test_a_generation_prompt_stays_as_the_model_reads_it_where_the_tokenizer_would_join_it_to_the_label(demo):
    tokenizer = copy.deepcopy(demo.tokenizer)
    tokenizer.add_tokens([*PLAIN, "\n\n"])
    tokenizer.chat_template = chatml(LAST_THOUGHT, "<think>\n")
    chat = ChatTemplate(tokenizer)
    (made,) = make_examples(chat, [PROMPT], [ANSWER], [True], 2, "refuse")
    assert list(made.prompt) == rendered(chat)
    assert tokenizer.decode(made.answer) == f"\n</think>\n\n{ANSWER}<|im_end|>"
    joined = rendered(chat, ANSWER)
    assert joined[: len(made.prompt)] != list(made.prompt)
    assert tokenizer.decode([*made.prompt, *made.answer]) == tokenizer.decode(joined).rstrip()


def test_a_thought_has_no_place_where_no_form_is_known(demo):
    with pytest.raises(BadInputError, match="neither the chat template nor the tokenizer has a known form"):
        ChatTemplate(demo.tokenizer).turn.lead_with(THOUGHT)
