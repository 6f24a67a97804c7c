"""How a job is shown as a whole, and what it says of the time left."""

import pytest

from harness.base import progress as shown
from harness.base.forecast import Forecast, Piece, in_words


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def pieces():
    """Two variants that answer and are trained; the model of the cost says 10 s for each piece."""
    return {
        f"{kind} {name}": Piece(kind, 10.0, f"variant {number} of 2, {name}")
        for number, name in ((1, "a"), (2, "b"))
        for kind in ("train", "answer")
    }


def test_before_anything_is_measured_the_model_of_the_cost_counts(clock):
    assert Forecast(pieces(), clock).left() == 40


def test_what_a_piece_took_corrects_its_kind_and_half_as_far_those_not_measured_yet(clock):
    forecast = Forecast(pieces(), clock)
    forecast.begin("train a")
    clock.now = 2.5
    forecast.end("train a")
    assert forecast.left() == pytest.approx(2.5 + 2 * 5)  # a quarter of the model's seconds; its root, a half
    forecast.begin("answer a")
    clock.now = 22.5
    forecast.end("answer a")
    assert forecast.left() == pytest.approx(2.5 + 20)
    assert forecast.done() == pytest.approx(22.5 / 45)


def test_the_pace_within_a_piece_counts_for_it_and_for_those_of_its_kind(clock):
    forecast = Forecast(pieces(), clock)
    forecast.begin("train a")
    clock.now = 10.0
    forecast.advance(0.25)
    # Four times the model's seconds: 30 s more, 40 s for the other training, and twice the seconds of the answers.
    assert forecast.left() == pytest.approx(30 + 40 + 2 * 20)


def test_pieces_that_were_done_before_or_are_passed_over_take_no_time(clock):
    forecast = Forecast(pieces(), clock)
    forecast.skip("train a")
    forecast.begin("answer b")
    assert forecast.left() == 10
    assert forecast.part == "variant 2 of 2, b"


def test_a_pipe_gets_few_lines_that_say_where_the_job_is(capsys, monkeypatch):
    monkeypatch.setattr(shown, "_SECONDS_OF_A_PART", 0.0)
    with shown.job(pieces()):
        for name in pieces():
            with shown.piece(name), shown.progress(name, 3, "answers") as advance:
                advance(3)
        shown.say("a message")
    assert capsys.readouterr().err.splitlines() == [
        "variant 1 of 2, a, about 40 s left",
        "variant 2 of 2, b, a few seconds left",
        "a message",
    ]


def test_quiet_says_nothing_and_only_within_its_job(capsys):
    with shown.job(pieces(), quiet=True):
        shown.say("unheard")
        with shown.progress("step", 2) as advance:
            advance(2)
    shown.say("heard")
    assert capsys.readouterr().err == "heard\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2, "a few seconds"),
        (12, "about 10 s"),
        (44, "about 40 s"),
        (200, "about 3 min"),
        (7200, "about 2 h"),
        (7800, "about 2 h 10 min"),
    ],
)
def test_durations_in_words(seconds, words):
    assert in_words(seconds) == words
