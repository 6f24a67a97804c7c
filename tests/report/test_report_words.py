import doctest
import math
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from harness.report import words
from harness.report.words import duration, listing, p_is, percent, signed, visible


def test_examples_of_the_docstrings_hold():
    assert doctest.testmod(words).failed == 0
    assert doctest.testmod(words).attempted > 5


def test_bidirectional_and_control_marks_are_written_out():
    assert visible("a\u202eb\u2066c\x1b[31m\u200f\r") == ("a⟨U+202E⟩b⟨U+2066⟩c⟨U+001B⟩[31m⟨U+200F⟩⟨U+000D⟩")


def test_line_ends_are_kept_only_where_asked():
    assert visible("a\nb\r\nc\td", lines=True) == "a\nb\nc\td"
    assert visible("a\nb") == "a⟨U+000A⟩b"


def test_words_of_other_scripts_and_joined_emoji_stay_as_they_are():
    for text in ("你好", "می\u200cخواهم", "👩\u200d🔬", "naïve"):
        assert visible(text) == text


@given(st.text())
def test_nothing_invisible_is_left(text):
    shown = visible(text)
    joiners = {"\u200c", "\u200d"}
    assert not [
        c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and c not in joiners
    ]


def test_no_value_is_said_and_not_shown_as_zero():
    assert percent(None) == "no value"
    assert percent(0.0) == "0.0%"


def test_no_difference_has_no_sign():
    assert (signed(0.0), signed(-0.0004), signed(0.0006)) == ("0.0", "0.0", "+0.1")


@given(st.floats(min_value=0, max_value=1))
def test_shown_p_value_lies_on_the_side_of_a_twentieth_that_it_is_on(p):
    shown = p_is(p)
    if shown == "p < 0.001":
        assert p < 0.001
    else:
        number = float(shown.removeprefix("p = "))
        assert math.isclose(number, p, abs_tol=0.006)
        if not math.isclose(p, 0.05, rel_tol=0.002):
            assert (number < 0.05) == (p < 0.05)


def test_listing_reads_as_a_sentence():
    assert [listing([]), listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_durations_change_their_unit_at_a_minute_and_an_hour():
    assert [duration(59.94), duration(60), duration(3600)] == ["59.9 s", "1 min 0 s", "1 h 0 min"]
