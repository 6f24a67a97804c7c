"""Definitions of public sets, read from files of the published shape. The rows are ours."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from harness.base.errors import BadInputError
from harness.data.sources import load_task
from harness.data.task import find_task, list_tasks


def harmbench(functional):
    return {
        "Behavior": f"Ask {functional}",
        "FunctionalCategory": functional,
        "SemanticCategory": "illegal",
        "Tags": "",
        "ContextString": "A text." if functional == "contextual" else "",
        "BehaviorID": f"id_{functional}",
    }


HARMBENCH = [harmbench(kind) for kind in ("standard", "contextual", "copyright")]
SORRY = [
    {"question_id": 1, "category": "1", "turns": ["Ask one"], "prompt_style": "base"},
    {"question_id": 2, "category": "1", "turns": ["Ask oddly"], "prompt_style": "slang"},
    {"question_id": 3, "category": "2", "turns": ["Ask two"], "prompt_style": "base"},
]
WILD = [
    {"adversarial": "A tale\twith a tab", "label": 1, "data_type": "adversarial_harmful"},
    {"adversarial": "Another tale", "label": 0, "data_type": "adversarial_benign"},
]
GUARD = [
    {
        "prompt": "Ask",
        "adversarial": False,
        "response": "r",
        "prompt_harm_label": label,
        "subcategory": "fraud",
    }
    for label in ("harmful", "unharmful", None)
]
PLAIN = [{"prompt": "Ask one", "category": "hate"}, {"prompt": "Ask two", "category": "harmful"}]
COCONOT = [
    {
        "id": "a",
        "category": "Requests with safety concerns",
        "subcategory": "s",
        "prompt": "Ask",
        "response": "",
    },
    {
        "id": "b",
        "category": "Incomplete requests",
        "subcategory": "s",
        "prompt": "What is it?",
        "response": "",
    },
]

# Task: rows of the published shape, texts of the prompts, their categories.
SHAPES = {
    "harmbench_standard": (HARMBENCH, ["Ask standard"], {"illegal"}),
    "harmbench_contextual": (HARMBENCH, ["A text.\n\n---\n\nAsk contextual"], {"illegal"}),
    "strongreject": (
        [{"category": "Violence", "source": "us", "forbidden_prompt": "Ask"}],
        ["Ask"],
        {"Violence"},
    ),
    "sorry_bench": (SORRY, ["Ask one", "Ask two"], {"1", "2"}),
    "wildjailbreak_harmful": (WILD, ["A tale\twith a tab"], {None}),
    "wildjailbreak_benign": (WILD, ["Another tale"], {None}),
    "wildguardtest_harmful": (GUARD, ["Ask"], {"fraud"}),
    "wildguardtest_benign": (GUARD, ["Ask"], {"fraud"}),
    "or_bench_hard": (PLAIN, ["Ask one", "Ask two"], {"hate", "harmful"}),
    "or_bench_toxic": (PLAIN, ["Ask one", "Ask two"], {"hate", "harmful"}),
    "falsereject": (PLAIN, ["Ask one", "Ask two"], {"hate", "harmful"}),
    "coconot_safety": (COCONOT, ["Ask"], {"s"}),
    "coconot_contrast": (COCONOT[1:], ["What is it?"], {"s"}),
    "do_not_answer": (
        [{"id": 1, "risk_area": "a", "types_of_harm": "t", "specific_harms": "s", "question": "Ask"}],
        ["Ask"],
        {"t"},
    ),
    "simple_safety_tests": (
        [{"id": "SST1", "harm_area": "Scams", "counter": 1, "category": "c", "prompt": "Ask"}],
        ["Ask"],
        {"Scams"},
    ),
}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_of_the_published_shape_gives_the_prompts_and_their_categories(tmp_path, name):
    rows, texts, categories = SHAPES[name]
    spec = find_task(name)
    (file,) = spec.source.files
    write(tmp_path / file, rows)
    prompts = load_task(spec, [tmp_path]).prompts
    assert [prompt.text for prompt in prompts] == texts
    assert {prompt.category for prompt in prompts} == categories


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_without_a_column_that_is_needed_is_refused(tmp_path, name):
    rows, _, _ = SHAPES[name]
    spec = find_task(name)
    needed = spec.prompt.columns[0].removesuffix("[0]")
    write(
        tmp_path / spec.source.files[0],
        [{k: v for k, v in row.items() if k != needed} | {"more": 1} for row in rows],
    )
    with pytest.raises(BadInputError, match=f"no column '{needed}' in"):
        load_task(spec, [tmp_path])


def test_every_public_set_says_its_licence_its_citation_and_where_it_is():
    for spec in list_tasks():
        if spec.source.package_files:
            continue
        assert spec.source.files, spec.name
        assert "arXiv" in spec.citation or "https://" in spec.citation, spec.name
    assert {spec.name for spec in list_tasks()} >= set(SHAPES)
