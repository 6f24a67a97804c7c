import pytest
from pydantic import ValidationError

from harness.data.where import Where


def kept(texts, **condition):
    where = Where.model_validate({"column": "c", **condition})
    return [text for text in texts if where.keeps(text)]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"equals": "a"}, ["a"]),
        ({"in": ["a", "b"]}, ["a", "b"]),
        ({"in": "b"}, ["b"]),
        ({"not": "a"}, ["", "b", "ab"]),
        ({"not": ["a", ""]}, ["b", "ab"]),
        ({"startswith": "a"}, ["a", "ab"]),
        ({"not_startswith": "a"}, ["", "b"]),
    ],
)
def test_each_condition_on_text(condition, expected):
    assert kept(["", "a", "b", "ab"], **condition) == expected


def test_numbers_are_compared_as_numbers_and_both_ends_belong_to_a_range():
    assert kept(["2", "10", "3.5", "1e1", "11"], at_least=3, at_most=10) == ["10", "3.5", "1e1"]
    assert kept(["2", "10"], at_most=2) == ["2"]


@pytest.mark.parametrize("condition", [{}, {"equals": "a", "in": ["b"]}, {"equals": "a", "at_least": 1}])
def test_a_condition_says_one_thing(condition):
    with pytest.raises(ValidationError, match="expected exactly one of"):
        Where.model_validate({"column": "c", **condition})


@pytest.mark.parametrize("condition", [{"in": []}, {"not": []}, {"at_least": float("nan")}])
def test_a_condition_that_cannot_be_met_is_refused(condition):
    with pytest.raises(ValidationError):
        Where.model_validate({"column": "c", **condition})
