import json

import pytest

from harness.base.errors import BadInputError
from harness.judges.labels import Columns, read_labels

XSTEST = "id,type,prompt,completion,annotation_1,annotation_2,agreement,final_label"


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def jsonl(path, *rows):
    return write(path, *map(json.dumps, rows))


def row(**changes):
    return {"id": "1", "response": "No, I won't.", "label": "refusal"} | changes


def test_xstest_files_are_recognised_by_their_columns(tmp_path):
    path = write(
        tmp_path / "xstest_v2_completions_llama2new.csv",
        XSTEST,
        "v2-1,homonyms,How?,So.,1_full_compliance,1_full_compliance,TRUE,1_full_compliance",
        "v2-2,contrast_homonyms,How?,No.,2_full_refusal,2_full_refusal,TRUE,2_full_refusal",
        "v2-3,homonyms,How?,Well.,3_partial_refusal,1_full_compliance,FALSE,3_partial_refusal",
    )
    rows = read_labels([path])
    assert [row.label for row in rows] == ["compliance", "refusal", "partial refusal"]
    assert {row.model for row in rows} == {"llama2new"}
    assert rows[1].category == "contrast_homonyms"


def test_columns_can_be_named(tmp_path):
    path = jsonl(
        tmp_path / "mine.jsonl", {"key": 7, "text": "Sure.", "human": "Compliance", "who": "m", "topic": "t"}
    )
    columns = Columns(id="key", response="text", label="human", model="who", category="topic")
    (found,) = read_labels([path], columns)
    assert (found.id, found.response, found.label, found.model, found.category) == (
        "7",
        "Sure.",
        "compliance",
        "m",
        "t",
    )


def test_without_a_model_column_the_file_names_the_model(tmp_path):
    path = jsonl(tmp_path / "my-model.jsonl", row())
    assert read_labels([path])[0].model == "my-model"


def test_two_models_may_have_answers_with_one_id(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", row(model="x"), row(model="y"))
    assert len(read_labels([path])) == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row(label="maybe")],
            "row 1: unknown label 'maybe' in column 'label': expected refusal, compliance or",
        ),
        ([row(), row(label="")], "row 2: unknown label ''"),
        ([row(), row()], "id '1' is given twice for model 'a'"),
        ([row(id="")], "row 1: column 'id' is empty"),
        ([row(), row(id=None)], "row 2: column 'id' is empty"),
        ([row(response=None)], "row 1: column 'response': expected text, found NoneType"),
        (
            [{"id": "1", "respnse": "No.", "label": "refusal"}],
            "no column 'response' .*did you mean 'respnse'",
        ),
        ([row(label="partial refusal")], "expected answers labelled refusal or compliance, found none"),
        ([], "found no rows"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, rows, message):
    with pytest.raises(BadInputError, match=message) as refused:
        read_labels([jsonl(tmp_path / "a.jsonl", *rows)])
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        read_labels([tmp_path / "none.csv"])
