"""Names of capability tasks are resolved, and data files found, before anything heavy is loaded."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import BadInputError
from harness.capability.prepare import prepare_tasks, prepared_rows
from harness.capability.tasks import (
    CapabilityTask,
    Preparation,
    TaskNotes,
    list_capability_tasks,
    resolve_capability_tasks,
)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _piqa(folder: Path, goals: int = 3, labels: str = "0\n1\n0\n") -> Path:
    rows = [{"goal": f"goal {n}", "sol1": "a", "sol2": "b"} for n in range(goals)]
    _write(folder / "piqa" / "valid.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    _write(folder / "piqa" / "valid-labels.lst", labels)
    return folder


def _task(preparation: Preparation) -> CapabilityTask:
    return CapabilityTask("made_up", Path("made_up.yaml"), TaskNotes(prepare=[preparation]))


def test_listing_imports_neither_torch_nor_lm_eval() -> None:
    code = (
        "import sys; from harness.capability.tasks import list_capability_tasks as l; print(*l());"
        "assert not {'torch', 'lm_eval', 'datasets'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"piqa_local", "mmlu_local8", "demo_facts", "demo_arithmetic"} <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("wrong", "right"), [("demo_fatcs", "demo_facts"), ("piqua", "piqa"), ("gsm8", "gsm8k")]
)
def test_an_unknown_name_gets_the_nearest_known_one(wrong: str, right: str) -> None:
    with pytest.raises(BadInputError, match=f"unknown capability task '{wrong}': did you mean '{right}'"):
        resolve_capability_tasks([wrong])


def test_lm_evals_own_names_are_known() -> None:
    names = ["hellaswag", "mmlu_global_facts", "arc_easy", "gsm8k"]
    assert resolve_capability_tasks(names) == dict.fromkeys(names)


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        BadInputError, match=r"'piqa_local': no file piqa/valid\.jsonl under --data-dir \(none given\)"
    ):
        resolve_capability_tasks(["piqa_local"])
    _write(tmp_path / "piqa" / "valid.jsonl", "{}\n")
    with pytest.raises(
        BadInputError, match=rf"no file piqa/valid-labels\.lst under --data-dir \({tmp_path}\)"
    ):
        resolve_capability_tasks(["piqa_local"], data_dirs=[tmp_path])


def test_piqa_means_ours_where_its_files_are_and_lm_evals_elsewhere(tmp_path: Path) -> None:
    with_files, without = _piqa(tmp_path / "a"), tmp_path / "b"
    assert list(resolve_capability_tasks(["piqa"], data_dirs=[without, with_files])) == ["piqa_local"]
    assert resolve_capability_tasks(["piqa"], data_dirs=[without]) == {"piqa": None}


def test_an_included_task_wins_over_a_shipped_one(tmp_path: Path) -> None:
    path = _write(tmp_path / "capability" / "mine.yaml", "task: demo_facts\nmetadata: {version: 9}\n")
    assert list_capability_tasks([tmp_path])["demo_facts"].path == path
    assert list_capability_tasks()["demo_facts"].path != path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [unclosed", "not valid YAML"),
        ("dataset_path: json", "task: missing"),
        (
            "task: x\nmetadata: {prepare: [{file: a, rows: {a: b}, label: c}]}",
            "label: unknown key, did you mean",
        ),
        ("task: x\nmetadata: {prepare: [{file: a}]}", "rows: missing"),
    ],
)
def test_a_task_file_with_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    _write(tmp_path / "capability" / "mine.yaml", text)
    with pytest.raises(BadInputError, match=rf"mine\.yaml: .*{message}"):
        list_capability_tasks([tmp_path])


def test_one_name_in_two_files_of_a_folder_is_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        _write(tmp_path / "capability" / name, "task: same")
    with pytest.raises(BadInputError, match=r"b\.yaml: task 'same' is also defined in a\.yaml"):
        list_capability_tasks([tmp_path])


def test_fingerprint_follows_the_data_and_not_its_folder(tmp_path: Path) -> None:
    task = list_capability_tasks()["piqa_local"]
    first, copy, other = (_piqa(tmp_path / name) for name in "abc")
    _write(other / "piqa" / "valid-labels.lst", "1\n1\n0\n")
    assert task.fingerprint([first]) == task.fingerprint([copy])
    assert task.fingerprint([first]) != task.fingerprint([other])


def test_labels_join_rows_line_by_line(tmp_path: Path) -> None:
    task = list_capability_tasks()["piqa_local"]
    rows = prepared_rows(task.notes.prepare[0], task, [_piqa(tmp_path)])
    assert [(row["id"], row["goal"], row["label"]) for row in rows] == [
        ("validation/0", "goal 0", 0),
        ("validation/1", "goal 1", 1),
        ("validation/2", "goal 2", 0),
    ]


@pytest.mark.parametrize(
    ("labels", "message"),
    [("0\n1\n", "2 labels, expected 3"), ("0\nx\n1\n", "expected one integer per line")],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: str, message: str) -> None:
    task = list_capability_tasks()["piqa_local"]
    with pytest.raises(BadInputError, match=rf"valid-labels\.lst: {message}"):
        prepared_rows(task.notes.prepare[0], task, [_piqa(tmp_path, labels=labels)])


def test_sources_take_turns_and_answers_become_numbers(tmp_path: Path) -> None:
    a = _write(tmp_path / "a.csv", "q,answer\na0,0\na1,1\na2,2\n")
    b = _write(tmp_path / "b.csv", "q,answer\nb0,3\n")
    preparation = Preparation(
        file="t.jsonl", rows={"first": str(a), "second": str(b)}, source_column="from", integers=["answer"]
    )
    rows = prepared_rows(preparation, _task(preparation), [])
    assert [(row["q"], row["answer"], row["from"], row["id"]) for row in rows] == [
        ("a0", 0, "first", "first/0"),
        ("b0", 3, "second", "second/0"),
        ("a1", 1, "first", "first/1"),
        ("a2", 2, "first", "first/2"),
    ]


@pytest.mark.parametrize(
    ("text", "found"), [("q,answer\na,0\nb,A\n", "row 2: answer: .* found 'A'"), ("q\na\n", "no such column")]
)
def test_an_answer_that_is_no_number_is_named(tmp_path: Path, text: str, found: str) -> None:
    path = _write(tmp_path / "a.csv", text)
    preparation = Preparation(file="t.jsonl", rows={"a": str(path)}, integers=["answer"])
    with pytest.raises(BadInputError, match=rf"a\.csv: .*{found}"):
        prepared_rows(preparation, _task(preparation), [])


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_the_first_rows_hold_every_source(
    lengths: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sources")
    paths = [
        _write(folder / f"{n}.csv", "q\n" + "".join(f"{n}-{row}\n" for row in range(length)))
        for n, length in enumerate(lengths)
    ]
    preparation = Preparation(
        file="t.jsonl", rows={path.stem: str(path) for path in paths}, source_column="s"
    )
    rows = prepared_rows(preparation, _task(preparation), [])
    assert Counter(row["s"] for row in rows) == {str(n): length for n, length in enumerate(lengths)}
    assert {row["s"] for row in rows[: len(lengths)]} == {str(n) for n in range(len(lengths))}


def test_prepared_files_hold_absolute_paths_and_the_code_beside_them(tmp_path: Path) -> None:
    include, data = tmp_path / "include" / "capability", _piqa(tmp_path / "data")
    text = 'task: mine\nfiles: ["{data_dir}/piqa/valid.jsonl", "{content_dir}/x.json", "{prepared_dir}/y"]\n'
    _write(include / "mine.yaml", text + "process_docs: !function code.keep\n")
    _write(include / "code.py", "def keep(docs):\n    return docs\n")
    task = list_capability_tasks([include.parent])["mine"]

    prepare_tasks([task], [tmp_path, data], tmp_path / "out")

    written = (tmp_path / "out" / "mine" / "mine.yaml").read_text(encoding="utf-8")
    expected = [f"{data}/piqa/valid.jsonl", f"{include}/x.json", f"{tmp_path}/out/mine/y"]
    assert json.dumps(expected) in written
    assert (tmp_path / "out" / "mine" / "code.py").is_file()


@pytest.mark.shared_data
def test_the_public_copies_give_every_item(shared_data: Path) -> None:
    tasks = list_capability_tasks()
    piqa, mmlu = (
        prepared_rows(tasks[name].notes.prepare[0], tasks[name], [shared_data])
        for name in ("piqa_local", "mmlu_local8")
    )
    assert len(piqa) == 1838
    assert {row["label"] for row in piqa} == {0, 1}
    assert Counter(row["subject"] for row in mmlu)["nutrition"] == 306
    assert len({row["subject"] for row in mmlu[:8]}) == 8
    assert {row["answer"] for row in mmlu} == {0, 1, 2, 3}


def test_a_set_means_its_tasks_without_repeats() -> None:
    quick = resolve_capability_tasks(["quick"])
    assert list(quick) == ["mmlu", "gsm8k", "ifeval"]
    assert list(resolve_capability_tasks(["hellaswag", "standard"])) == [
        *("hellaswag", "mmlu", "gsm8k", "ifeval", "arc_challenge", "truthfulqa_mc2")
    ]


@pytest.mark.shared_data
def test_local_tasks_ask_as_lm_eval_does(shared_data: Path, tmp_path: Path) -> None:
    """The words around a question are those of lm-eval's own task."""
    from lm_eval.tasks import TaskManager

    ours = list_capability_tasks()
    prepare_tasks([ours["gsm8k_local"], ours["truthfulqa_local"]], [shared_data], tmp_path)
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    tasks = manager.load(["gsm8k_local", "truthfulqa_local"])["tasks"]
    problems, truths = tasks["gsm8k_local"], tasks["truthfulqa_local"]
    problem = next(iter(problems.test_docs()))
    assert problems.doc_to_text(problem) == f"Question: {problem['question']}\nAnswer:"
    assert len(problems.test_docs()) == 1319
    truth = next(iter(truths.validation_docs()))
    assert truths.doc_to_text(truth).startswith("Q: ")
    assert truths.doc_to_text(truth).endswith(f"\n\nQ: {truth['Question']}\nA:")
    choices = truths.doc_to_choice(truth)
    assert choices[truths.doc_to_target(truth)] == truth["Best Answer"]
    assert len(set(choices)) == len(choices) > 2


OWN = """
dataset_path: json
dataset_kwargs:
  data_files:
    test: "{content_dir}/items.jsonl"
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_target: label
doc_to_choice: ["yes", "no"]
"""


@pytest.fixture
def own(tmp_path):
    """A folder with tasks that share settings by `include`, and a group with a task that is written out in it."""
    place = tmp_path / "capability"
    place.mkdir()
    files = {
        "shared.yaml": f"task: shared\n{OWN}",
        "one.yaml": "include: shared.yaml\ntask: one\n",
        "both.yaml": "group: both\ntask: [one, {task: inline, dataset_path: json}]\n",
    }
    for name, text in files.items():
        (place / name).write_text(text)
    (place / "items.jsonl").write_text('{"q": "a", "label": 0}\n')
    return tmp_path


def test_files_that_a_task_includes_come_with_it_and_belong_to_its_fingerprint(own, tmp_path):
    task = list_capability_tasks([own])["one"]
    prepare_tasks([task], [], tmp_path / "prepared")
    copied = (tmp_path / "prepared" / "one" / "shared.yaml").read_text()
    assert f"{own / 'capability' / 'items.jsonl'}" in copied
    before = task.fingerprint([])
    (own / "capability" / "shared.yaml").write_text(f"task: shared\n{OWN}num_fewshot: 2\n")
    assert list_capability_tasks([own])["one"].fingerprint([]) != before


def test_lm_eval_finds_a_task_that_includes_another_file(own, tmp_path):
    from lm_eval.tasks import TaskManager

    prepare_tasks([list_capability_tasks([own])["one"]], [], tmp_path / "prepared")
    manager = TaskManager(include_path=str(tmp_path / "prepared"), include_defaults=False)
    assert "one" in manager.all_tasks


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("include: gone.yaml\ntask: two\n", "two.yaml: include: no file 'gone.yaml'"),
        ("include: two.yaml\ntask: two\n", "include: 'two.yaml' includes itself"),
        (
            "group: two\ntask: [{task: x, include: shared.yaml}]\n",
            "'x' has include, which lm-eval reads at the top",
        ),
    ],
)
def test_what_cannot_be_included_is_one_line(own, text, expected):
    (own / "capability" / "two.yaml").write_text(text)
    with pytest.raises(BadInputError, match=re.escape(expected)):
        list_capability_tasks([own])


@pytest.mark.parametrize("names", [["one", "both"], ["both", "one"]])
def test_a_task_beside_its_group_is_refused(own, names):
    with pytest.raises(BadInputError, match="'one' and 'both': the first is in the second"):
        resolve_capability_tasks(names, [own])
