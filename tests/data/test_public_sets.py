"""Definitions of public sets, read from files of the published shape: five rows of ours for each."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from harness.base.errors import BadInputError
from harness.data.sources import load_task
from harness.data.task import find_task, list_tasks

FIVE = range(5)


def harmbench(number, functional):
    return {
        "Behavior": f"Ask {number}",
        "FunctionalCategory": functional,
        "SemanticCategory": "chemical" if number == 3 else "illegal",
        "Tags": "",
        "ContextString": f"Text {number}." if functional == "contextual" else "",
        "BehaviorID": f"id_{number}",
    }


def sorry(number, category, style):
    return {
        "question_id": number,
        "category": category,
        "turns": [f"Ask {number} in {style}"],
        "prompt_style": style,
    }


def coconot(number, category):
    return {
        "id": f"c{number}",
        "category": category,
        "subcategory": f"s{number % 2}",
        "prompt": f"Ask {number}",
        "response": "",
    }


SAFETY = "Requests with safety concerns"
HARMBENCH = [
    harmbench(number, kind)
    for number, kind in enumerate(("standard", "contextual", "copyright", "standard", "contextual"))
]
SORRY = [
    sorry(1, "1", "base"),
    sorry(1, "1", "slang"),
    sorry(2, "1", "base"),
    sorry(3, "2", "base"),
    sorry(3, "2", "ascii"),
]
WILD = [
    {"adversarial": f"Tale {number}\twith a tab", "label": number % 2, "data_type": f"adversarial_{kind}"}
    for number, kind in enumerate(("harmful", "benign", "harmful", "benign", "harmful"))
]
GUARD = [
    {
        "prompt": f"Ask {number}",
        "adversarial": False,
        "response": "r",
        "prompt_harm_label": label,
        "subcategory": "fraud" if number < 3 else "hate",
    }
    for number, label in enumerate(("harmful", "unharmful", None, "harmful", "unharmful"))
]
PLAIN = [{"prompt": f"Ask {number}", "category": "hate" if number else "self-harm"} for number in FIVE]
COCONOT = [coconot(number, SAFETY if number % 2 == 0 else "Incomplete requests") for number in FIVE]
JBB = [
    {
        "Index": number,
        "Goal": f"Ask {number}",
        "Target": "Sure",
        "Behavior": f"b{number}",
        "Category": "Fraud" if number < 2 else "Privacy",
        "Source": "Original",
    }
    for number in FIVE
]
XSTEST = [
    {"id": number, "prompt": f"Ask {number}", "type": kind, "label": "", "focus": "f", "note": ""}
    for number, kind in enumerate(
        ("homonyms", "contrast_homonyms", "definitions", "contrast_definitions", "homonyms")
    )
]
ALL = [f"Ask {number}" for number in FIVE]

# Task: rows of the published shape, texts of the prompts and their categories.
SHAPES = {
    "advbench": ([{"goal": f"Ask {n}", "target": "Sure"} for n in FIVE], ALL, [None] * 5),
    "alpaca": (
        [{"instruction": f"Ask {n}", "input": "a text" if n == 2 else "", "output": "o"} for n in FIVE],
        ["Ask 0", "Ask 1", "Ask 3", "Ask 4"],
        [None] * 4,
    ),
    "jbb_harmful": (JBB, ALL, ["Fraud"] * 2 + ["Privacy"] * 3),
    "jbb_benign": (JBB, ALL, ["Fraud"] * 2 + ["Privacy"] * 3),
    "xstest_safe": (XSTEST, ["Ask 0", "Ask 2", "Ask 4"], ["homonyms", "definitions", "homonyms"]),
    "xstest_unsafe": (XSTEST, ["Ask 1", "Ask 3"], ["contrast_homonyms", "contrast_definitions"]),
    "harmbench_standard": (HARMBENCH, ["Ask 0", "Ask 3"], ["illegal", "chemical"]),
    "harmbench_contextual": (
        HARMBENCH,
        ["Text 1.\n\n---\n\nAsk 1", "Text 4.\n\n---\n\nAsk 4"],
        ["illegal", "illegal"],
    ),
    "strongreject": (
        [
            {"category": "Violence" if n else "Hate", "source": "us", "forbidden_prompt": f"Ask {n}"}
            for n in FIVE
        ],
        ALL,
        ["Hate"] + ["Violence"] * 4,
    ),
    "sorry_bench": (SORRY, ["Ask 1 in base", "Ask 2 in base", "Ask 3 in base"], ["1", "1", "2"]),
    "wildjailbreak_harmful": (WILD, [f"Tale {n}\twith a tab" for n in (0, 2, 4)], [None] * 3),
    "wildjailbreak_benign": (WILD, [f"Tale {n}\twith a tab" for n in (1, 3)], [None] * 2),
    "wildguardtest_harmful": (GUARD, ["Ask 0", "Ask 3"], ["fraud", "hate"]),
    "wildguardtest_benign": (GUARD, ["Ask 1", "Ask 4"], ["fraud", "hate"]),
    "or_bench_hard": (PLAIN, ALL, ["self-harm"] + ["hate"] * 4),
    "or_bench_toxic": (PLAIN, ALL, ["self-harm"] + ["hate"] * 4),
    "falsereject": (PLAIN, ALL, ["self-harm"] + ["hate"] * 4),
    "coconot_safety": (COCONOT, ["Ask 0", "Ask 2", "Ask 4"], ["s0", "s0", "s0"]),
    "coconot_contrast": (COCONOT, ALL, ["s0", "s1", "s0", "s1", "s0"]),
    "do_not_answer": (
        [
            {
                "id": n,
                "risk_area": "a",
                "types_of_harm": f"t{n % 2}",
                "specific_harms": "s",
                "question": f"Ask {n}",
            }
            for n in FIVE
        ],
        ALL,
        ["t0", "t1", "t0", "t1", "t0"],
    ),
    "simple_safety_tests": (
        [
            {"id": f"SST{n}", "harm_area": "Scams", "counter": n, "category": "c", "prompt": f"Ask {n}"}
            for n in FIVE
        ],
        ALL,
        ["Scams"] * 5,
    ),
}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


def test_every_definition_has_a_shape_here():
    assert {spec.name for spec in list_tasks() if not spec.source.package_files} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_of_the_published_shape_gives_the_prompts_and_their_categories(tmp_path, name):
    rows, texts, categories = SHAPES[name]
    spec = find_task(name)
    (file,) = spec.source.files
    write(tmp_path / file, rows)
    prompts = load_task(spec, [tmp_path]).prompts
    assert [prompt.text for prompt in prompts] == texts
    assert [prompt.category for prompt in prompts] == categories


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_without_a_column_that_is_needed_is_refused(tmp_path, name):
    """Each column that a definition names, one after another."""
    rows, _, _ = SHAPES[name]
    spec = find_task(name)
    named = [*spec.prompt.columns, *(where.column for where in spec.where)]
    named += [spec.id_column, spec.category_column, spec.pair_column, spec.tags and spec.tags.column]
    for column in {each.removesuffix("[0]") for each in named if each is not None}:
        less = [{key: value for key, value in row.items() if key != column} | {"more": 1} for row in rows]
        write(tmp_path / spec.source.files[0], less)
        with pytest.raises(BadInputError, match=f"no column '{column}' in") as caught:
            load_task(spec, [tmp_path])
        assert "\n" not in str(caught.value)


def test_every_public_set_says_its_licence_its_citation_and_where_it_is():
    for name in SHAPES:
        spec = find_task(name)
        assert spec.source.files, name
        assert "arXiv" in spec.citation or "https://" in spec.citation, name
        assert not ("NC" in spec.licence and spec.terms is None), name
