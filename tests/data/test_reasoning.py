import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.reasoning import split

ANSWERED = {
    "think": ("<think>\nAn easy one.\n</think>\n\nParis.", "", "An easy one.", "Paris."),
    "think, empty": ("<think>\n\n</think>\n\nParis.", "", "", "Paris."),
    "think, opened": ("An easy one.\n</think>\n\nParis.", "<think>\n", "An easy one.", "Paris."),
    "think, opened by a whole prompt": (
        "Easy.</think>Paris.",
        "<|im_start|>assistant\n<think>\n",
        "Easy.",
        "Paris.",
    ),
    "think, opened and repeated": ("<think>\nEasy.\n</think>\nParis.", "<think>\n", "Easy.", "Paris."),
    "think, opened and closed": ("Paris.", "<think>\n\n</think>\n\n", "", "Paris."),
    "think, opening dropped": ("An easy one.\n</think>\n\nParis.", "", "An easy one.", "Paris."),
    "two blocks": ("<think>One.</think>\n<think>Two.</think>Paris.", "", "One.\n\nTwo.", "Paris."),
    "thinking": ("<thinking>Easy.</thinking>Paris.", "", "Easy.", "Paris."),
    "bracketed": ("[THINK]Easy.[/THINK]Paris.</s>", "", "Easy.", "Paris."),
    "seed": ("<seed:think>Easy.</seed:think>Paris.<seed:eos>", "", "Easy.", "Paris."),
    "harmony": (
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>",
        "<|start|>assistant",
        "Easy.",
        "Paris.",
    ),
    "harmony, analysis opened": (
        "Easy.<|end|><|start|>assistant<|channel|>final<|message|>Paris.",
        "<|start|>assistant<|channel|>analysis<|message|>",
        "Easy.",
        "Paris.",
    ),
    "harmony, final opened": (
        "Paris.<|return|>",
        "<|start|>assistant<|channel|>final<|message|>",
        "",
        "Paris.",
    ),
    "harmony without special tokens": (
        "analysisAn easy one.assistantfinalParis.",
        "",
        "An easy one.",
        "Paris.",
    ),
    "gemma": ("<|channel>thought\nEasy.<channel|>Paris.<turn|>", "", "Easy.", "Paris."),
    "gemma, empty": ("<|channel>thought\n<channel|>Paris.", "", "", "Paris."),
    "gemma, opened": ("Easy.<channel|>Paris.", "<|turn>model\n<|channel>thought\n", "Easy.", "Paris."),
    "thought in the middle": (
        "Let me see.\n<think>\nEasy.\n</think>\nParis.",
        "",
        "Easy.",
        "Let me see.\n\nParis.",
    ),
    "thinks again": (
        "[THINK]One.[/THINK]Hm.\n[THINK]\nTwo.\n[/THINK]\nParis.",
        "",
        "One.\n\nTwo.",
        "Hm.\n\nParis.",
    ),
    "thought at the end, truncated": ("Paris.\n<think>\nIs that", "", "Is that", "Paris."),
    "closed twice": (
        "<think>\nOne.\n<think>\nTwo.\n</think>\nThree.\n</think>\nParis.",
        "",
        "One.\n<think>\nTwo.\n\nThree.",
        "Paris.",
    ),
    "kimi": ("\u25c1think\u25b7Easy.\u25c1/think\u25b7Paris.", "", "Easy.", "Paris."),
    "solar": ("<|think|>Easy.<|end|><|begin|>assistant<|content|>Paris.<|end|>", "", "Easy.", "Paris."),
    "solar, opened": (
        "Easy.<|end|><|begin|>assistant<|content|>Paris.",
        "<|begin|>assistant<|think|>",
        "Easy.",
        "Paris.",
    ),
    "none": ("Paris.<|im_end|>\n", "<|im_start|>assistant\n", "", "Paris."),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_reasoning_and_answer_are_told_apart(case):
    response, opened, reasoning, answer = ANSWERED[case]
    assert split(response, opened) == (reasoning, answer)


@pytest.mark.parametrize(
    ("response", "opened"),
    [
        ("<think>\nThe user asks", ""),
        ("The user asks", "<think>\n"),
        ("", "<think>\n"),
        ("The user asks\n</thi", "<think>\n"),
        ("<thi", ""),
        ("[THINK]The user asks", ""),
        ("<seed:think>The user", ""),
        ("<|channel>thought\nThe user asks", ""),
        ("<|channel|>analysis<|message|>The user asks", ""),
        ("<|channel|>analysis", ""),
        ("<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>fin", ""),
        ("<|channel|>analysis<|message|>Easy.<|end|>", ""),
        ('<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>', ""),
        ("analysisThe user asks", ""),
    ],
)
def test_an_answer_that_never_began_is_none(response, opened):
    found = split(response, opened)
    assert found.answer is None
    assert "</thi" not in found.reasoning


@pytest.mark.parametrize(
    ("response", "opened", "answer"),
    [
        ("Put <think> and </think> around thoughts.", "", "Put <think> and </think> around thoughts."),
        ("<think> is the tag that opens a thought.", "", "<think> is the tag that opens a thought."),
        ("<think>\nEasy.\n</think>\n\nUse <think> and </think>.", "", "Use <think> and </think>."),
        ("<think>\nEasy.\n</think>\n\n<think> is a tag.", "", "<think> is a tag."),
        ("<think>\nThey wrote <think> and `</think>`.\n</think>\n\nYes.", "", "Yes."),
        ("<think>\nThey wrote <think> only.\n</think>\n\nYes.", "", "Yes."),
        ("They ask of the </think> tag.\n</think>\n\nYes.", "<think>\n", "Yes."),
        ("I could write </think> here and go on.\n</think>\n\nYes.", "<think>\n", "Yes."),
        ("Closing it with <think>x</think> on a line.\n</think>\n\nYes.", "<think>\n", "Yes."),
        ("So:\n```\n[THINK]\na\n[/THINK]\n```\nDone.", "", "So:\n```\n[THINK]\na\n[/THINK]\n```\nDone."),
        ("So:\n```\n</think>\n```\nDone.", "", "So:\n```\n</think>\n```\nDone."),
        (
            "<|channel|>analysis<|message|>They ask of `<|channel|>final<|message|>`.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>Write <|channel|>final<|message|> first.",
            "",
            "Write <|channel|>final<|message|> first.",
        ),
        ("analysis of the poem: it is sad", "", "analysis of the poem: it is sad"),
    ],
)
def test_markers_that_a_text_only_mentions_are_text(response, opened, answer):
    assert split(response, opened).answer == answer


@given(st.text(max_size=300))
def test_text_without_markers_is_the_answer(text):
    if not any(mark in text for mark in ("<", "[", "analysis")):
        assert split(text) == ("", text.strip())


@given(
    st.lists(
        st.sampled_from(
            ["<think>", "</think>", "[THINK]", "<|channel|>", "final", "<|message|>", "a ", "\n", "`"]
        )
    )
)
def test_any_mixture_of_markers_is_split(pieces):
    found = split("".join(pieces))
    assert found.answer is None or found.answer == found.answer.strip()


@pytest.mark.parametrize("opened", ["", "<think>\n", "<|start|>assistant<|channel|>analysis<|message|>"])
@pytest.mark.parametrize(
    "piece",
    ["<think>", "</think>", "<think></think>", "`</think>`", "<think> </think>\n", "<|channel|>analysis<|message|>",
     "<|end|>", "<|start|>assistant", "assistant", "\n", "```\n"],
)  # fmt: skip
def test_the_time_taken_is_linear_in_the_length(piece, opened):
    for beginning in ("", "<think>", "<|channel|>analysis<|message|>", "analysisA"):
        started = time.process_time()
        split(beginning + piece * (200_000 // len(piece)), opened)
        assert time.process_time() - started < 1
