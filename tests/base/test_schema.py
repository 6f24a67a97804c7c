import re
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field

from harness.base.errors import BadInputError
from harness.base.files import read_jsonl
from harness.base.schema import read_yaml, validated


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    inner: Inner | None = None
    several: list[Inner] = []


def refusal(tmp_path, text):
    path = tmp_path / "thing.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInputError) as caught:
        read_yaml(path, Outer)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_a_valid_file_becomes_the_model(tmp_path):
    path = tmp_path / "thing.yaml"
    path.write_text("name: a\ninner: {size: 3}\n")
    assert read_yaml(path, Outer) == Outer(name="a", inner=Inner(size=3))


def test_a_misspelt_key_names_the_nearest_of_its_level(tmp_path):
    assert refusal(tmp_path, "nam: a") == "name: missing; nam: unknown key, did you mean 'name'?"
    assert refusal(tmp_path, "name: a\ninner: {sise: 3, size: 3}") == (
        "inner.sise: unknown key, did you mean 'size'?"
    )
    assert refusal(tmp_path, "name: a\nseveral: [{size: 1}, {siz: 1, size: 1}]") == (
        "several.1.siz: unknown key, did you mean 'size'?"
    )


def test_a_wrong_value_says_what_was_expected_and_found(tmp_path):
    assert refusal(tmp_path, "name: a\ninner: {size: big}") == (
        "inner.size: expected a valid integer, found 'big'"
    )


def test_what_is_not_a_mapping_is_told(tmp_path):
    assert refusal(tmp_path, "- a") == "expected a mapping of keys to values, found a list"
    assert refusal(tmp_path, "") == "expected a mapping of keys to values, found nothing"


def test_what_is_not_yaml_is_told_with_its_line(tmp_path):
    assert refusal(tmp_path, "name: [a").startswith("not valid YAML: line 1: expected")
    assert "line 2" in refusal(tmp_path, "name: a\n  b: c: d")
    assert refusal(tmp_path, b"\xff\xfe") == "not valid YAML: byte 0 is not UTF-8 text"


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BadInputError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml", Outer)


class Either(BaseModel):
    size: Annotated[int, Field(ge=1)] | dict[str, Annotated[int, Field(ge=1)]]


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            0,
            "size: expected at least 1 or a mapping of keys to values, found 0",
        ),
        ({"a": 0}, "size.a: expected at least 1, found 0"),
    ],
)
def test_of_a_value_that_may_be_several_things_the_deepest_mistake_is_said(size, message):
    with pytest.raises(BadInputError) as caught:
        validated({"size": size}, "it", Either)
    assert str(caught.value) == f"it: {message}"


def test_a_key_of_another_level_is_found_there(tmp_path):
    assert refusal(tmp_path, "name: a\nsize: 3") == "size: unknown key, did you mean 'inner.size'?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": \n', "f.jsonl: not valid JSON: line 2: Expecting value"),
        ('{"a": 1}\n\n[1]\n', "f.jsonl: line 3: expected a mapping of keys to values, found a list"),
        ("[" * 100_000, "f.jsonl: not valid JSON: nested too deeply"),
    ],
)
def test_a_line_that_is_no_json_object_is_named(tmp_path, text, message):
    (tmp_path / "f.jsonl").write_text(text)
    with pytest.raises(BadInputError, match=re.escape(message)):
        read_jsonl(tmp_path / "f.jsonl")
