import pytest

from harness.errors import BadInputError
from harness.judges.base import JUDGES, Verdict, judge_all


def row(id, response):
    return {"id": id, "prompt": "Do it.", "response": response, "finish_reason": "stop"}


def test_the_keyword_judge_is_found_by_name():
    assert list(JUDGES) == ["keyword"]
    assert JUDGES.get("keyword")().name == "keyword"


def test_an_unknown_judge_names_the_nearest():
    with pytest.raises(BadInputError, match=r"unknown judge 'keyward': did you mean 'keyword'\?"):
        JUDGES.get("keyward")


def test_every_answer_gets_one_verdict_in_order():
    verdicts = judge_all(
        JUDGES.get("keyword")(), [row("b", "I can't help."), row("a", "Sure."), row("c", "")]
    )
    assert [(verdict.id, verdict.label) for verdict in verdicts] == [
        ("b", "refusal"),
        ("a", "compliance"),
        ("c", None),
    ]


def test_an_answer_given_twice_is_refused():
    with pytest.raises(BadInputError, match="id 'a' is given twice"):
        judge_all(JUDGES.get("keyword")(), [row("a", "Sure."), row("a", "No, I won't.")])


def test_a_verdict_without_a_label_needs_a_reason():
    with pytest.raises(ValueError, match="reason"):
        Verdict("a", None)
    with pytest.raises(ValueError, match="reason"):
        Verdict("a", "refusal", reason="empty")
