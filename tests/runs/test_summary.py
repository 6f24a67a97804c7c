import copy
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from harness.base.errors import BadInputError
from harness.runs.summary import Summary, read_summary, write_summary

# The schema of the design, field by field and in its order.
DOCUMENT = {
    "schema_version": 2,
    "run_id": "r1",
    "created": "2026-11-23T10:00:00+00:00",
    "configuration": None,
    "harness_version": "0.1.0",
    "model": {
        "name": "demo",
        "fingerprint": "abc",
        "moe_layers": 4,
        "experts_per_layer": 32,
        "experts_per_token": 2,
        "parameters": 3_600_000,
    },
    "intervention": "unsafe_experts",
    "seeds": {"run": 0},
    "decoding": {"max_new_tokens": {"advbench": 64}, "do_sample": False},
    "judge": "keyword",
    "judges": {
        "keyword": {
            "measures": "refusal",
            "fingerprint": "f",
            "labels": ["labels.csv"],
            "n": 10,
            "clusters": None,
            "accuracy": {"value": 0.9, "low": 0.6, "high": 0.98},
            "sensitivity": None,
            "specificity": None,
            "kappa": None,
            "precision": None,
            "positives_of": None,
            "uneven": [],
            "own": None,
        }
    },
    "agreement": [
        {
            **{
                "task": "advbench",
                "judges": ["keyword", "mine"],
                "n": 4,
                "kappa": 0.5,
                "alpha": None,
                "differ": 1,
            },
            "quantity": "refusal",
        }
    ],
    "selection": {
        "method": "top_k",
        "phase": "prompt",
        "direction": "unsafe",
        "experts": [
            {
                "layer": 1,
                "expert": 7,
                "risk_diff": 0.2,
                "score": None,
                "low": None,
                "high": None,
                "q_value": None,
                "held_out": None,
            },
        ],
        "held_out": None,
        "topic": None,
    },
    "variants": {
        "base": {
            "specification": {"name": "base", "intervention": "none", "draw": 0},
            "trained_parameters": 0,
            "frozen_unchanged": None,
            "skipped": None,
            "seconds": {"generate": 1.5},
            "experts": None,
        },
        "unsafe_experts": {
            "specification": {
                "name": "unsafe_experts",
                "intervention": "train_experts",
                "experts": "selected",
            },
            "trained_parameters": 100,
            "frozen_unchanged": True,
            "skipped": None,
            "seconds": {},
            "experts": None,
        },
    },
    "measurements": [
        {
            "variant": "base",
            "task": "advbench",
            "kind": "harmful",
            "metric": "refusal_rate",
            "judge": "keyword",
            "value": 0.25,
            "low": 0.05,
            "high": 0.7,
            "n": 5,
            "scored": 4,
            "unscored": 1,
            "truncated": 2,
            "worst_case": [0.2, 0.4],
            "clusters": 3,
            "corrected": None,
            "not_corrected": None,
            "stderr": None,
            "unparsed": None,
            "higher_is_better": None,
            "is_mean": None,
            "unit": None,
            "tokens": None,
        },
        {
            "variant": "base",
            "task": "piqa",
            "kind": "capability",
            "metric": "acc",
            "judge": None,
            "value": 0.6,
            "low": 0.56,
            "high": 0.64,
            "n": 500,
            "scored": 500,
            "unscored": 0,
            "truncated": None,
            "worst_case": None,
            "clusters": None,
            "corrected": None,
            "not_corrected": None,
            "stderr": 0.02,
            "unparsed": 0,
            "higher_is_better": True,
            "is_mean": True,
            "unit": "share",
            "tokens": None,
        },
    ],
    "comparisons": [
        {
            "variant": "unsafe_experts",
            "against": "base",
            "task": "advbench",
            "metric": "refusal_rate",
            "judge": "keyword",
            "value": 0.75,
            "against_value": 0.25,
            "difference": 0.5,
            "low": 0.1,
            "high": 0.8,
            "p_value": 0.01,
            "p_adjusted": 0.02,
            "family": "harmful against base",
            "test": "exact McNemar",
            "unit": "prompts",
            "n": 4,
            "clusters": 3,
            "discordant": 2,
            "worst_case": [0.2, 0.6],
            "p_worst_case": 0.3,
            "minimum_detectable": None,
            "margin": None,
            "bound": None,
            "decided_on": None,
            "needed": None,
            "verdict": "not decided",
        }
    ],
    "claims": [
        {
            "variant": "unsafe_experts",
            "method": "risk_diff",
            "metric": "refusal_rate",
            "better": "higher",
            "tasks": ["advbench"],
            "judge": "keyword",
            "value": 0.75,
            "draws": {"random_experts": 0.5},
            "p_value": 0.5,
            "use_share": 0.97,
            "prompts": 4,
            "verdict": "nothing claimed",
            "reason": "1 draw can show p = 0.5 at best; it takes 19",
        }
    ],
    "seconds": {"capture": 2.0},
}


@pytest.fixture
def document() -> dict:
    return copy.deepcopy(DOCUMENT)


def put(run: Path, text: str) -> Path:
    (run / "summary.json").write_text(text, encoding="utf-8")
    return run


def test_written_file_is_the_design_s_json_with_its_nulls_and_order(document, tmp_path):
    write_summary(tmp_path, Summary.model_validate(document))

    text = (tmp_path / "summary.json").read_text(encoding="utf-8")
    assert json.dumps(json.loads(text)) == json.dumps(document)


def test_reading_gives_back_what_was_written(document, tmp_path):
    summary = Summary.model_validate(document)
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary


def test_missing_file_is_bad_input(tmp_path):
    with pytest.raises(BadInputError, match=r"summary\.json: no such file"):
        read_summary(tmp_path)


def test_file_in_the_place_of_a_run_folder_is_bad_input(tmp_path):
    file = tmp_path / "run"
    file.write_text("")
    with pytest.raises(BadInputError, match="is a file"):
        read_summary(file)


@pytest.mark.parametrize("text", ["", '{"schema_version": 1', "\x00"])
def test_broken_json_is_bad_input_in_one_line(text, tmp_path):
    with pytest.raises(BadInputError, match="not valid JSON") as error:
        read_summary(put(tmp_path, text))
    assert "\n" not in str(error.value)


def test_bytes_that_are_not_utf8_are_bad_input(tmp_path):
    (tmp_path / "summary.json").write_bytes(b'"\xff"')
    with pytest.raises(BadInputError, match="not valid JSON"):
        read_summary(tmp_path)


@pytest.mark.parametrize("text", ["{}", "[]", '{"schema_version": "1"}', '{"schema_version": 0}'])
def test_file_without_a_schema_version_is_bad_input(text, tmp_path):
    with pytest.raises(BadInputError, match=r"schema_version is .*; expected a number such as 2"):
        read_summary(put(tmp_path, text))


def test_broken_field_is_named(document, tmp_path):
    document["measurements"][0]["n"] = "five"
    with pytest.raises(BadInputError, match=r"measurements\.0\.n: .*integer") as error:
        read_summary(put(tmp_path, json.dumps(document)))
    assert "\n" not in str(error.value)


def test_what_a_newer_version_added_is_passed_over(document, tmp_path):
    newer = copy.deepcopy(document) | {"schema_version": 3, "boasts": []}
    newer["model"]["colour"] = "red"
    newer["measurements"][0]["colour"] = "red"
    assert read_summary(put(tmp_path, json.dumps(newer))) == Summary.model_validate(document)


def test_what_a_newer_version_left_out_is_named_with_its_version(document, tmp_path):
    newer = {name: value for name, value in document.items() if name != "judge"} | {"schema_version": 3}
    with pytest.raises(BadInputError, match=r"\(schema_version 3, this version writes 2\): judge: missing"):
        read_summary(put(tmp_path, json.dumps(newer)))


def test_what_is_written_has_no_unknown_field(document):
    document["measurements"][0]["colour"] = "red"
    with pytest.raises(ValidationError, match="colour"):
        Summary.model_validate(document)


def test_a_lost_summary_of_a_run_is_made_again_by_measure(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BadInputError, match="`harness measure "):
        read_summary(tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_nan_in_a_file_is_refused_wherever_it_stands(document, number, tmp_path):
    text = json.dumps(document).replace('"do_sample": false', f'"do_sample": {number}')
    assert number in text
    with pytest.raises(BadInputError, match="not valid JSON"):
        read_summary(put(tmp_path, text))


def test_nan_is_refused_in_memory(document):
    document["measurements"][1]["value"] = float("nan")
    with pytest.raises(ValidationError, match="finite"):
        Summary.model_validate(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scored": 5}, "is not n 5"),
        ({"truncated": 6}, "more than n"),
        ({"value": None}, "null when scored is 0"),
        ({"scored": 0, "unscored": 5}, "null when scored is 0"),
        ({"low": 0.3}, "is broken"),
        ({"high": 1.1}, "is broken"),
    ],
)
def test_task_figures_that_contradict_each_other_are_refused(document, change, message):
    document["measurements"][0].update(change)
    with pytest.raises(ValidationError, match=message):
        Summary.model_validate(document)


def test_rate_is_null_when_nothing_was_scored(document):
    document["measurements"][0].update(scored=0, unscored=5, value=None, low=None, high=None)
    assert Summary.model_validate(document).measurements[0].value is None


def test_bound_that_misses_the_rate_by_rounding_is_accepted(document):
    document["measurements"][0].update(value=1.0, high=1 - 1e-16 * 4)
    Summary.model_validate(document)


@pytest.mark.parametrize(("trained", "proof"), [(0, True), (100, None)])
def test_trained_variant_has_a_frozen_proof_and_no_other_has(document, trained, proof):
    document["variants"]["base"].update(trained_parameters=trained, frozen_unchanged=proof)
    with pytest.raises(ValidationError, match="frozen_unchanged is null"):
        Summary.model_validate(document)


def test_skipped_variant_has_no_results(document):
    document["variants"]["base"]["skipped"] = "does not fit"
    with pytest.raises(ValidationError, match="skipped variant 'base' has results"):
        Summary.model_validate(document)


def test_measurement_of_an_unknown_variant_is_refused(document):
    document["measurements"][0]["variant"] = "random_experts"
    with pytest.raises(ValidationError, match="'random_experts'"):
        Summary.model_validate(document)


def test_a_figure_given_twice_is_refused(document):
    document["measurements"].append(document["measurements"][0])
    with pytest.raises(ValidationError, match="refusal_rate of 'base' on advbench by keyword is given twice"):
        Summary.model_validate(document)


def test_comparison_of_an_unknown_variant_is_refused(document):
    document["comparisons"][0]["against"] = "random_experts"
    with pytest.raises(ValidationError, match="'random_experts'"):
        Summary.model_validate(document)


def test_every_field_has_a_description():
    schema = Summary.model_json_schema()
    for part in [schema, *schema["$defs"].values()]:
        for name, field in part.get("properties", {}).items():
            assert field.get("description"), (part.get("title"), name)
