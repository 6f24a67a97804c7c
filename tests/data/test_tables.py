import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.base.errors import BadInputError
from harness.data.tables import Reader, read_table

ROWS = [{"id": "1", "text": 'He said "hi",\nthen left.'}, {"id": "2", "text": "été\u2028line"}]


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path):
    with pytest.raises(BadInputError) as caught:
        read_table(path)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_the_same_rows_come_out_of_every_format(tmp_path):
    csv = 'id,text\n1,"He said ""hi"",\nthen left."\n2,été\u2028line\n'
    jsonl = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read_table(write(tmp_path, "a.csv", csv)) == ROWS
    assert read_table(write(tmp_path, "windows.csv", b"\xef\xbb\xbf" + csv.encode())) == ROWS
    assert read_table(write(tmp_path, "a.json", json.dumps(ROWS))) == ROWS
    assert read_table(write(tmp_path, "a.jsonl", jsonl)) == ROWS
    assert read_table(tmp_path / "a.parquet") == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", '[{"a": 1}]', "not CSV: it begins like JSON"),
        ("a.csv", b"PAR1\x00\x15\xff", "not valid CSV: byte 6 is not UTF-8 text"),
        ("a.csv", "a,b\n1\n", "line 2: expected 2 columns, found 1"),
        ("a.csv", "a,b\n1,2,3\n", "line 2: expected 2 columns, found 3"),
        ("a.csv", "a,a\n1,2\n", "line 1: a column name is given twice"),
        ("a.csv", 'a\n"open\n', "not CSV: line 2: unexpected end of data"),
        ("a.json", "a,b\n1,2\n", "not valid JSON: line 1: Expecting value"),
        ("a.json", '{"a": 1}', "expected a JSON list of objects, found a dict"),
        ("a.json", '[{"a": 1}, 2]', "row 1: expected an object, found a int"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "not valid JSON: line 2: Extra data"),
        ("a.jsonl", "a,b\n", "not valid JSON: line 1: Expecting value"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "not valid JSON: line 2: Expecting value"),
        ("a.jsonl", '[{"a": 1}]', "line 1: expected a mapping of keys to values, found a list"),
        ("a.jsonl", b"\x80", "not valid JSON: byte 0 is not UTF-8 text"),
        ("a.txt", "a", "expected a file ending in .csv, .tsv, .json, .jsonl, .parquet"),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says_is_told(tmp_path, name, content, message):
    assert refusal(write(tmp_path, name, content)) == message


def test_a_csv_file_is_not_parquet(tmp_path):
    assert refusal(write(tmp_path, "a.parquet", "a,b\n1,2\n" * 9)).startswith("not Parquet: ")
    assert refusal(write(tmp_path, "b.parquet", "")).startswith("not Parquet: ")


def test_a_missing_file_is_told(tmp_path):
    assert refusal(tmp_path / "a.csv") == "no such file"


def test_a_folder_name_adds_no_column(tmp_path):
    folder = tmp_path / "split=test"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "a.parquet")
    assert read_table(folder / "a.parquet") == ROWS


def test_a_reader_says_how_files_are_that_are_not_as_usual(tmp_path):
    expected = [{"id": "1", "text": "été, là"}]
    latin = write(tmp_path, "a.csv", "id;text\n1;été, là\n".encode("latin-1"))
    assert read_table(latin, Reader(delimiter=";", encoding="latin-1")) == expected
    whole = write(tmp_path, "a.json", json.dumps({"version": 1, "data": expected}))
    assert read_table(whole, Reader(rows="data")) == expected
    with pytest.raises(BadInputError, match="no key 'dat', did you mean 'data'"):
        read_table(whole, Reader(rows="dat"))
    with pytest.raises(BadInputError, match="byte 10 is not UTF-8 text"):
        read_table(latin)
