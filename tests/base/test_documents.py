"""JSON and YAML texts that cannot be used are one line; nothing in them is passed over."""

from __future__ import annotations

import pytest

from harness.base.documents import parse_json, parse_yaml
from harness.base.errors import BadInputError


def refused(parse, text: str) -> str:
    with pytest.raises(BadInputError) as error:
        parse(text, "file")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "text", ["gates: [1]\nname: x\ngates: [2]\n", "a: 1\n'a': 2\n", "x: [{a: 1, a: 2}]\n"]
)
def test_a_key_that_is_given_twice_is_refused_with_both_lines(text):
    line = refused(parse_yaml, text)
    assert "is given twice, on line 1 and on line" in line


def test_both_lines_of_a_key_that_is_given_twice_are_named():
    line = refused(parse_yaml, "gates: [1]\nname: x\ngates: [2]\n")
    assert line == "file: not valid YAML: 'gates' is given twice, on line 1 and on line 3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,\n "a": 2}', "'a' is given twice, on line 7 and on line 8"),
        (
            '[{"b": {"a": "}{"}, "a": 1},\n\n{"b": 1, "c": ["\\"b\\":"],\n"\\u0062": 2}]',
            "'b' is given twice, on line 9 and on line 10",
        ),
    ],
)
def test_a_key_of_json_that_is_given_twice_is_refused_with_both_lines(text, expected):
    with pytest.raises(BadInputError) as error:
        parse_json(text, "file", line=7)
    assert str(error.value) == f"file: not valid JSON: {expected}"


def test_a_key_of_json_may_be_given_again_in_another_object():
    assert parse_json('[{"a": {"a": 1}}, {"a": 2}]', "file") == [{"a": {"a": 1}}, {"a": 2}]


def test_a_key_may_be_given_again_elsewhere_and_beside_what_is_merged():
    text = "base: &base {a: 1, b: 2}\nmore: {<<: *base, a: 3}\nother: {a: 1}\n"
    assert parse_yaml(text, "file")["more"] == {"a": 3, "b": 2}


def test_references_that_make_millions_of_values_of_a_few_lines_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than 1,000,000 values by references" in refused(parse_yaml, "\n".join(lines))


def test_references_that_nest_without_end_are_refused():
    assert "contains itself" in refused(parse_yaml, "a: &a [*a]")
    chain = ["a0: &a0 [1]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 300))]
    assert "nested too deeply" in refused(parse_yaml, "\n".join(chain))


@pytest.mark.parametrize("depth", [101, 600, 2_000, 100_000])
@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_nesting_of_any_depth_is_refused(parse, depth):
    if parse is parse_yaml and depth > 2_000:
        pytest.skip("PyYAML reads brackets at a pace of its own")
    assert "nested too deeply, expected at most 100 levels" in refused(parse, "[" * depth + "]" * depth)
    assert "nested too deeply" in refused(parse_json, '{"a":' * depth + "1" + "}" * depth)


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_what_is_nested_a_hundred_times_is_read(parse):
    content = parse("[" * 100 + "]" * 100, "file")
    assert content[0][0][0]


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_a_number_of_5000_digits_is_refused(parse):
    assert "a number has too many digits" in refused(parse, f'{{"a": {"9" * 5_000}}}')


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_half_a_character_is_refused(parse):
    assert "a lone surrogate" in refused(parse, '{"a": "\\ud800"}')
    assert "a lone surrogate" in refused(parse, '{"\\udc00": 1}')


def test_a_character_of_two_halves_and_an_escaped_backslash_are_read():
    assert parse_json('{"a": "\\ud83d\\ude00", "b": "\\\\ud800"}', "file") == {"a": "😀", "b": "\\ud800"}


@pytest.mark.parametrize("text", ["a: 2001-99-99", "a: !!python/name:os.system", "a: [", "\x00", "a: \x1b"])
def test_other_text_that_is_no_yaml_is_one_line(text):
    assert refused(parse_yaml, text).startswith("file: not valid YAML: ")
