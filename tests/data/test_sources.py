import hashlib
import json

import pytest

from harness.base.errors import BadInputError
from harness.data.prompts import Prompt
from harness.data.sources import load_task, load_tasks
from harness.data.task import TaskSpec, find_task, read_task


def task(**changes):
    return TaskSpec.model_validate(
        {
            "name": "mine",
            "kind": "benign",
            "description": "Questions.",
            "source": {"files": ["sub/mine.jsonl"]},
            "prompt": {"column": "q"},
            "licence": "CC0",
            "citation": "Me.",
            **changes,
        }
    )


def data(folder, rows, name="sub/mine.jsonl"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def refusal(spec, *data_dirs):
    with pytest.raises(BadInputError) as caught:
        load_task(spec, data_dirs)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def test_rows_become_prompts_with_their_row_number_as_id(tmp_path):
    loaded = load_task(task(), [data(tmp_path, [{"q": " What is tea? "}, {"q": "Who are you?"}])])
    assert loaded.prompts == (
        Prompt("0", "What is tea?", "mine", "benign"),
        Prompt("1", "Who are you?", "mine", "benign"),
    )


def test_ids_count_rows_before_the_filter_so_that_a_filter_changes_none(tmp_path):
    rows = [{"q": "a", "input": "x"}, {"q": "b", "input": ""}, {"q": "c"}, {"q": "d", "input": "xy"}]
    folder = data(tmp_path, rows)

    def kept(**where):
        return [prompt.id for prompt in load_task(task(where={"column": "input", **where}), [folder]).prompts]

    assert kept(equals="") == ["1", "2"]
    assert kept(startswith="x") == ["0", "3"]
    assert kept(not_startswith="x") == ["1", "2"]


def test_all_columns_are_carried_over(tmp_path):
    spec = task(
        prompt={"template": "{q} In {n} words, {{please}}."},
        id_column="key",
        category_column="topic",
        pair_column="pair",
        split_column="split",
    )
    row = {"q": "Why?", "n": 5, "key": 7, "topic": "food", "pair": 3, "split": "train"}
    loaded = load_task(spec, [data(tmp_path, [row, {**row, "key": "8", "topic": None, "pair": ""}])])
    assert loaded.prompts == (
        Prompt("7", "Why? In 5 words, {please}.", "mine", "benign", "food", "3", "train"),
        Prompt("8", "Why? In 5 words, {please}.", "mine", "benign", None, None, "train"),
    )


def test_the_first_data_folder_with_the_file_wins(tmp_path):
    empty, first, second = tmp_path / "empty", tmp_path / "first", tmp_path / "second"
    empty.mkdir()
    data(first, [{"q": "first"}])
    data(second, [{"q": "second"}])
    loaded = load_task(task(), [empty, first, second])
    assert [prompt.text for prompt in loaded.prompts] == ["first"]
    assert loaded.resolved.origin == str(first)
    digest = hashlib.sha256((first / "sub/mine.jsonl").read_bytes()).hexdigest()
    assert loaded.resolved.sha256 == {"sub/mine.jsonl": digest}


def test_several_files_are_read_one_after_another(tmp_path):
    data(tmp_path, [{"q": "a"}, {"q": "b"}])
    data(tmp_path, [{"q": "c"}], "more.jsonl")
    loaded = load_task(task(source={"files": ["sub/mine.jsonl", "more.jsonl"]}), [tmp_path])
    assert [(prompt.id, prompt.text) for prompt in loaded.prompts] == [("0", "a"), ("1", "b"), ("2", "c")]


def test_package_files_are_beside_the_task_file(tmp_path):
    data(tmp_path, [{"q": "shipped"}], "data/mine.jsonl")
    (tmp_path / "mine.yaml").write_text(
        "{name: mine, kind: benign, description: d, source: {package_files: [data/mine.jsonl]},"
        " prompt: {column: q}, licence: CC0, citation: Me}"
    )
    loaded = load_task(read_task(tmp_path / "mine.yaml"))
    assert [prompt.text for prompt in loaded.prompts] == ["shipped"]
    assert (loaded.resolved.kind, loaded.resolved.origin) == ("package", str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({}, [{"question": "a"}], "prompt: no column 'q' in sub/mine.jsonl, known: question"),
        (
            {"prompt": {"template": "{question}"}},
            [{"questoin": "a"}],
            "prompt: no column 'question' in sub/mine.jsonl, did you mean 'questoin'?",
        ),
        (
            {"id_column": "index"},
            [{"q": "a", "indx": 1}],
            "id_column: no column 'index' in sub/mine.jsonl, did you mean 'indx'?",
        ),
        (
            {"where": {"column": "kind", "equals": "x"}},
            [{"q": "a", "kinds": 1}],
            "where.column: no column 'kind' in sub/mine.jsonl, did you mean 'kinds'?",
        ),
        ({}, [], "no rows in sub/mine.jsonl"),
        (
            {"where": {"column": "q", "equals": "x"}},
            [{"q": "a"}, {"q": "b"}],
            "where: none of the 2 rows of sub/mine.jsonl is left",
        ),
        (
            {"id_column": "id"},
            [{"q": "a", "id": 1}, {"q": "b", "id": "1"}],
            "row 1 (counted from 0): id '1' is given twice",
        ),
        ({"id_column": "id"}, [{"q": "a", "id": " "}], "row 0 (counted from 0): id_column 'id' is empty"),
        ({}, [{"q": "a"}, {"q": " \n"}], "row 1 (counted from 0): the prompt is empty"),
        ({}, [{"q": "a"}, {"other": "b"}], "row 1 (counted from 0): the prompt is empty"),
        (
            {"prompt": {"template": "Say {q} and {w}"}},
            [{"q": "a", "w": ""}],
            "row 0 (counted from 0): the prompt's column 'w' is empty",
        ),
        (
            {},
            [{"q": ["a"]}],
            "row 0 (counted from 0): column 'q': expected text, found a list; 'q[0]' is its first item",
        ),
        (
            {"split_column": "split"},
            [{"q": "a", "split": "tests"}],
            "row 0 (counted from 0): split_column 'split': expected one of identify, train, test, found 'tests'",
        ),
    ],
)
def test_bad_rows_are_told_in_one_line(tmp_path, changes, rows, message):
    assert refusal(task(**changes), data(tmp_path, rows)) == f"task mine: {message}"


def test_an_absent_file_says_where_it_was_looked_for(tmp_path):
    assert refusal(task(), tmp_path) == (
        f"task mine: source.files: sub/mine.jsonl is under no --data-dir ({tmp_path})"
    )
    assert refusal(task()) == (
        "task mine: source.files: sub/mine.jsonl is under no --data-dir (none was given)"
    )
    data(tmp_path, [{"q": "a"}])
    half = task(source={"files": ["sub/mine.jsonl", "more.jsonl"]})
    assert refusal(half, tmp_path) == (
        "task mine: source.files: more.jsonl is under no --data-dir, though others are"
    )


def test_an_absent_data_folder_is_told(tmp_path):
    assert refusal(task(), tmp_path / "none") == f"--data-dir: no folder {tmp_path / 'none'}"


def test_a_hub_data_set_is_read_through_datasets_with_renamed_columns(tmp_path):
    # `datasets` takes a local folder for a hub id, so no network is needed.
    data(tmp_path / "set", [{"prompt": "What is tea?", "n": 1}], "train.jsonl")
    hub = {"path": str(tmp_path / "set"), "split": "train", "rename": {"prompt": "q"}}
    loaded = load_task(task(source={"hub": hub, "files": ["sub/mine.jsonl"]}), [tmp_path])
    assert [prompt.text for prompt in loaded.prompts] == ["What is tea?"]
    assert loaded.resolved.kind == "hub"


def test_a_file_wins_over_the_hub(tmp_path):
    data(tmp_path, [{"q": "from a file"}])
    spec = task(source={"hub": {"path": "nobody/nothing", "split": "train"}, "files": ["sub/mine.jsonl"]})
    assert load_task(spec, [tmp_path]).resolved.kind == "files"


def test_an_unreachable_hub_names_the_file_to_bring(tmp_path):
    hub = {"path": str(tmp_path / "none"), "split": "train"}
    message = refusal(task(source={"hub": hub, "files": ["sub/mine.jsonl"]}), tmp_path)
    assert message.startswith(f"task mine: source.hub: {tmp_path / 'none'} can't be had (")
    assert message.endswith("; give --data-dir with a folder that holds sub/mine.jsonl")


def test_a_wrong_hub_split_or_column_is_told(tmp_path):
    data(tmp_path, [{"prompt": "a"}], "train.jsonl")
    assert "Unknown split" in refusal(task(source={"hub": {"path": str(tmp_path), "split": "tset"}}))
    hub = {"path": str(tmp_path), "split": "train", "rename": {"promt": "q"}}
    assert refusal(task(source={"hub": hub})) == (
        f"task mine: source.hub.rename: no column 'promt' in {tmp_path}, did you mean 'prompt'?"
    )


def test_the_fingerprint_follows_what_can_change_a_result(tmp_path):
    folder = data(tmp_path, [{"q": "a"}])
    one = load_task(task(), [folder]).fingerprint
    assert load_task(task(description="Other words."), [folder]).fingerprint == one
    assert load_task(task(max_new_tokens=9), [folder]).fingerprint != one
    assert load_task(task(), [data(tmp_path / "b", [{"q": "b"}])]).fingerprint != one


def test_the_record_is_json_and_names_source_and_version(tmp_path):
    record = load_task(task(version=3), [data(tmp_path, [{"q": "a"}])]).record()
    assert json.loads(json.dumps(record)) == record
    assert (record["version"], record["prompts"], record["source"]) == (3, 1, "files")


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "prompts", "categories"),
    [
        ("advbench", 520, 0),
        ("alpaca", 1213, 0),
        ("jbb_harmful", 100, 10),
        ("jbb_benign", 100, 10),
        ("xstest_safe", 250, 10),
        ("xstest_unsafe", 200, 8),
    ],
)
def test_public_prompt_sets_are_served_from_a_data_folder(shared_data, name, prompts, categories):
    loaded = load_task(find_task(name), [shared_data])
    assert len(loaded.prompts) == prompts
    assert len({prompt.category for prompt in loaded.prompts} - {None}) == categories
    assert loaded.resolved.kind == "files"


def test_an_item_of_a_list_column_can_be_the_prompt(tmp_path):
    folder = data(tmp_path, [{"turns": ["a", "b"]}, {"turns": ["c"]}])
    first = load_task(task(prompt={"column": "turns[0]"}), [folder])
    assert [prompt.text for prompt in first.prompts] == ["a", "c"]
    assert (
        refusal(task(prompt={"column": "turns[1]"}), folder)
        == "task mine: row 1 (counted from 0): the prompt is empty"
    )


def test_a_column_whose_own_name_ends_in_brackets_wins(tmp_path):
    folder = data(tmp_path, [{"turns": ["a"], "turns[0]": "own"}])
    assert load_task(task(prompt={"column": "turns[0]"}), [folder]).prompts[0].text == "own"


def test_an_optional_column_may_be_empty_and_others_may_not(tmp_path):
    spec = task(prompt={"template": "{context}\n{q}", "optional": ["context"]})
    folder = data(tmp_path, [{"q": "Why?", "context": "A text."}, {"q": "How?"}])
    assert [prompt.text for prompt in load_task(spec, [folder]).prompts] == ["A text.\nWhy?", "How?"]
    assert "the prompt's column 'q' is empty" in refusal(spec, data(tmp_path, [{"context": "x", "q": ""}]))


def test_rows_meet_every_condition(tmp_path):
    rows = [{"q": "a", "kind": "x", "n": 1}, {"q": "b", "kind": "x", "n": 5}, {"q": "c", "kind": "y", "n": 5}]
    folder = data(tmp_path, rows)
    spec = task(where=[{"column": "kind", "in": ["x", "z"]}, {"column": "n", "at_least": 2}])
    assert [prompt.id for prompt in load_task(spec, [folder]).prompts] == ["1"]
    spec = task(where={"column": "kind", "at_least": 2})
    assert refusal(spec, folder).endswith("column 'kind': expected a number, found 'x'")


def test_what_is_missing_is_said_of_all_tasks_at_once(tmp_path):
    specs = [task(), task(name="other", source={"files": ["other.csv"]})]
    with pytest.raises(BadInputError) as caught:
        load_tasks(specs, [tmp_path])
    message = str(caught.value)
    assert "sub/mine.jsonl" in message
    assert "other.csv" in message
    assert "the data of 2 tasks" in message


def test_the_hub_is_asked_once_where_it_does_not_answer(tmp_path):
    hub = {"path": "nobody/nothing", "split": "test", "gated": True, "confirmed": False}
    specs = [task(name=name, source={"files": ["a.csv"], "hub": hub}) for name in ("one", "two")]
    with pytest.raises(BadInputError) as caught:
        load_tasks(specs, [tmp_path])
    assert "task two: source.hub: nobody/nothing can't be had (the hub cannot be reached)" in str(
        caught.value
    )
    assert str(caught.value).count("accept its terms at https://huggingface.co/datasets/nobody/nothing") == 2
    assert "its id is not confirmed" in str(caught.value)


def test_tags_are_the_words_of_a_column_or_of_its_list_as_this_task_calls_them(tmp_path):
    rows = [{"q": "a", "kinds": ["homonyms", "it", "homonym"]}, {"q": "b", "kinds": "homonyms"}, {"q": "c"}]
    spec = task(tags={"column": "kinds", "rename": {"homonyms": "homonym"}})
    loaded = load_task(spec, [data(tmp_path, rows)])
    assert [prompt.tags for prompt in loaded.prompts] == [("homonym", "it"), ("homonym",), ()]
    assert loaded.fingerprint == load_task(task(), [tmp_path]).fingerprint
    assert (
        "row 0 (counted from 0): tags.column 'kinds': expected text or a list of texts, found a int"
        in refusal(spec, data(tmp_path, [{"q": "a", "kinds": 3}]))
    )
    assert "tags.column: no column 'kind' in sub/mine.jsonl, did you mean 'kinds'?" in refusal(
        task(tags={"column": "kind"}), data(tmp_path, rows)
    )


def test_lookalikes_and_xstest_share_their_tags(shared_data):
    tags = {
        name: {tag for prompt in load_task(find_task(name), [shared_data]).prompts for tag in prompt.tags}
        for name in ("lookalikes", "lookalikes_plain", "xstest_safe")
    }
    assert tags["lookalikes"] == tags["lookalikes_plain"]
    assert tags["xstest_safe"] & tags["lookalikes"] == {
        *("homonym", "figurative", "definition", "history", "fiction", "public_facts")
    }
