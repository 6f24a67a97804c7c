from harness.report.listing import listing

ROWS = [
    {"name": "a_task_whose_name_is_long_and_has_to_be_typed", "kind": "harmful", "about": "Words " * 12},
    {"name": "short", "kind": "benign", "about": "One line."},
]


def test_a_pipe_gets_one_line_per_row():
    lines = list(listing(ROWS, None))
    assert len(lines) == 3
    assert lines[1].split() == [*list(ROWS[0].values())[:2], *["Words"] * 12]


def test_names_are_whole_at_every_width_and_no_word_is_lost():
    for width in (30, 50, 80, 90, 200):
        lines = list(listing(ROWS, width))
        text = "\n".join(lines)
        assert ROWS[0]["name"] in text
        assert text.count("Words") == 12
        assert "One line." in text
        assert max(map(len, lines)) <= max(width, len(ROWS[0]["name"]))


def test_a_list_that_fits_is_in_columns_and_the_last_one_wraps():
    lines = list(listing(ROWS, 85))
    assert [line.startswith(" ") for line in lines] == [False, False, True, True, False]
    assert all(line.index("Words") == lines[1].index("Words") for line in lines[2:4])


def test_control_characters_of_a_name_reach_no_terminal():
    assert list(listing([{"name": "a\x1b[2J", "about": ""}], 80))[1] == "a⟨U+001B⟩[2J"
