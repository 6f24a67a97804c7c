import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judges.builtin.degenerate import ends_in_a_loop, why_degenerate

PROSE = (
    "To clean a kettle, fill it with equal parts of water and vinegar and bring it to the boil. Leave it to stand "
    "for an hour, pour it out, and rinse the kettle well before you use it again."
)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("the cat sat " * 12, "the answer loops from its beginning"),
        ("You are my best friend. " * 9, "the answer loops from its beginning"),
    ],
)
def test_an_answer_that_says_nothing_is_told_with_its_reason(answer, reason):
    assert reason in why_degenerate(answer, truncated=False)


@pytest.mark.parametrize(
    "answer",
    [
        PROSE,
        "Paris.",
        "56",
        "Eins, zwei.",
        "\n".join(f"{i}. item{'abcdefghijklmnopqrstuvwxyz'[i]} thing" for i in range(26)),
        "```python\n" + "\n".join(f"value_{i} = compute(matrix, vector)" for i in range(20)) + "\n```",
        "Row, row, row your boat, gently down the stream.",
    ],
)
def test_short_answers_lists_code_and_prose_are_not_degenerate(answer):
    assert why_degenerate(answer, truncated=False) is None


def test_an_answer_cut_before_it_began_says_nothing_but_a_cut_long_one_does():
    assert why_degenerate("To clean", truncated=True) == "the answer was truncated after 2 words"
    assert why_degenerate("To clean", truncated=False) is None
    assert why_degenerate(PROSE[:80], truncated=True) is None


def test_prose_that_loops_only_later_is_judged_by_its_beginning():
    assert why_degenerate(PROSE + PROSE + " And so on." * 50, truncated=True) is None


@given(st.text(max_size=300), st.booleans())
def test_any_text_is_read(answer, truncated):
    reason = why_degenerate(answer, truncated=truncated)
    assert reason is None or reason.startswith("the answer ")


@pytest.mark.parametrize(
    "answer",
    [
        "Sure. " + "and then I " * 12 + "and th",
        PROSE + " It is done.\n" * 10,
        PROSE * 4,
        "Mix it. " + "ha" * 40,
        "先に水を入れる。" * 9,
    ],
)
def test_an_answer_that_repeats_itself_to_its_end_is_a_loop(answer):
    assert ends_in_a_loop(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no no no",
        PROSE,
        PROSE * 2,
        "and then I " * 12 + PROSE,
        ", ".join(map(str, range(20))),
    ],
)
def test_an_answer_that_repeats_nothing_at_its_end_is_no_loop(answer):
    assert not ends_in_a_loop(answer)


def test_a_long_answer_is_looked_at_from_its_end():
    assert ends_in_a_loop(PROSE + "word " * 40_000)
    assert not ends_in_a_loop("word " * 40_000 + PROSE)
