"""Which metric is reported, which way is better and what can be tested are lm-eval's own, by real lm-eval tasks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.metrics import bootstrap_stderr, perplexity

from harness.capability.lm_eval import run_capability
from harness.capability.results import CapabilityResult
from harness.engines.transformers import TransformersEngine
from harness.models.load import load_model, resolve_model

_ROWS = [
    {"q": f"What is {n} plus 1?", "a": str(n + 1), "choices": ["yes", "no"], "gold": n % 2} for n in range(8)
]
_CODE = """\
def errors(doc, results):
    return {"error": int(doc["gold"] == 0), "rate": doc["gold"] * 0.5, "share": 0.25}

def half(items):
    return sum(items) / len(items)
"""
_TASK = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: "{{content_dir}}/rows.jsonl"
  cache_dir: "{{prepared_dir}}/cache"
test_split: train
doc_to_text: "{{{{q}}}}"
metadata: {{version: 1, apply_chat_template: true}}
"""
_CHOICES = """\
output_type: multiple_choice
doc_to_target: "{{gold}}"
doc_to_choice: "{{choices}}"
"""
_GENERATES = """\
output_type: generate_until
generation_kwargs: {max_gen_toks: 4, do_sample: false, until: []}
doc_to_target: "nothing like it {{a}}"
"""
_OWN = _GENERATES + "process_results: !function code.errors\n"
_TASKS = {
    # lm-eval lists acc before acc_norm in its results, whatever the order in the task.
    "norm_first": f"{_CHOICES}metric_list: [{{metric: acc_norm}}, {{metric: acc}}]\n",
    "f1_of_all": f"{_CHOICES}metric_list: [{{metric: f1}}]\n",
    "words": """output_type: loglikelihood\ndoc_to_target: " {{a}}"\nmetric_list: [{metric: perplexity}]\n""",
    "texts": """output_type: loglikelihood_rolling\ndoc_to_target: "{{q}}"\nmetric_list: [{metric: bits_per_byte}]\n""",
    "bleu_of_all": f"{_GENERATES}metric_list: [{{metric: bleu}}]\n",
    "errors": f"{_OWN}metric_list: [{{metric: error, aggregation: mean, higher_is_better: false}}]\n",
    "rates": f"{_OWN}metric_list: [{{metric: rate, aggregation: mean, higher_is_better: true}}]\n",
    "equal": f"{_OWN}metric_list: [{{metric: share, aggregation: mean, higher_is_better: true}}]\n",
    "undirected": f"{_OWN}metric_list: [{{metric: rate, aggregation: mean, higher_is_better: null}}]\n",
    "own_aggregation": (
        f"{_OWN}metric_list: [{{metric: rate, aggregation: !function code.half, higher_is_better: true}}]\n"
    ),
}
_GROUP = """\
group: {name}
task: [errors, {other}]
aggregate_metric_list: [{{metric: {metric}, aggregation: mean, weight_by_size: {by_size}}}]
metadata: {{version: 1, apply_chat_template: true}}
"""
_GROUPS = {
    "by_size": _GROUP.format(name="by_size", other="more_errors", metric="error", by_size="true"),
    "by_task": _GROUP.format(name="by_task", other="more_errors", metric="error", by_size="false"),
    "disagreeing": _GROUP.format(name="disagreeing", other="no_errors", metric="error", by_size="true"),
}


@pytest.fixture(scope="module")
def include(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tasks above."""
    include = tmp_path_factory.mktemp("included")
    folder = include / "capability"
    folder.mkdir()
    (folder / "code.py").write_text(_CODE, encoding="utf-8")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _ROWS), encoding="utf-8")
    (folder / "fewer.jsonl").write_text(json.dumps(_ROWS[0]) + "\n", encoding="utf-8")
    tasks = {name: _TASK.format(name=name) + rest for name, rest in _TASKS.items()}
    more = _TASK.format(name="more_errors") + _TASKS["errors"]
    tasks["more_errors"] = more.replace("rows.jsonl", "fewer.jsonl")
    opposite = _TASK.format(name="no_errors") + _TASKS["errors"]
    tasks["no_errors"] = opposite.replace("higher_is_better: false", "higher_is_better: true")
    for name, text in (tasks | _GROUPS).items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return include


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    return TransformersEngine(load_model(resolve_model("demo"), device="cpu"), 8)


@pytest.fixture(scope="module")
def results(engine: TransformersEngine, include: Path) -> Mapping[str, CapabilityResult]:
    """Every task above, measured once."""
    # lm-eval refuses a task in two places at once.
    together = ([*_TASKS], *([group] for group in _GROUPS))
    found = [run_capability(engine, tasks, include=[include], batch_size=8) for tasks in together]
    return {name: result for results in found for name, result in results.items()}


@pytest.mark.parametrize(
    ("task", "metric", "higher_is_better", "is_mean"),
    [
        ("norm_first", "acc_norm", True, True),
        ("f1_of_all", "f1", True, False),
        ("words", "perplexity", False, False),
        ("texts", "bits_per_byte", False, False),
        ("bleu_of_all", "bleu", True, False),
        ("errors", "error", False, True),
        ("rates", "rate", True, True),
        ("undirected", "rate", None, True),
        ("own_aggregation", "rate", True, False),
        ("by_size", "error", False, True),
        ("by_task", "error", False, False),
        ("disagreeing", "error", None, True),
    ],
)
def test_direction_and_what_can_be_tested_are_those_of_the_configuration(
    results: Mapping[str, CapabilityResult],
    task: str,
    metric: str,
    higher_is_better: bool | None,
    is_mean: bool,
) -> None:
    result = results[task]
    found: tuple[Any, ...] = (result.metric, result.higher_is_better, result.is_mean)
    assert found == (metric, higher_is_better, is_mean)


def test_each_figure_has_the_interval_that_fits_it(results: Mapping[str, CapabilityResult]) -> None:
    intervals = {task: result.interval for task, result in results.items()}
    assert (intervals["errors"], intervals["rates"], intervals["words"]) == ("wilson", "t", "normal")
    assert results["by_size"].n == 9
    # (4 / 8 + 1 / 1) / 2: each task counts once, so Wilson's interval of 5 of 9 would be of another figure.
    assert (results["by_task"].value, results["by_task"].interval) == (0.75, None)
    assert results["by_size"].value == pytest.approx(5 / 9)


def test_a_bleu_of_0_over_8_items_and_8_equal_scores_have_no_error_and_no_interval(
    results: Mapping[str, CapabilityResult],
) -> None:
    for task, value in (("bleu_of_all", 0.0), ("equal", 0.25)):
        result = results[task]
        assert (result.value, result.n) == (value, 8)
        assert (result.stderr, result.low, result.high, result.interval) == (None, None, None, None)


def test_only_shares_are_shown_in_percent(results: Mapping[str, CapabilityResult]) -> None:
    units = {
        task: results[task].unit
        for task in ("norm_first", "errors", "by_task", "words", "texts", "bleu_of_all")
    }
    assert units == {
        **dict.fromkeys(("norm_first", "errors", "by_task"), "share"),
        **dict.fromkeys(("words", "texts", "bleu_of_all"), "number"),
    }


def test_the_error_of_a_corpus_metric_is_lm_evals_own_and_nothing_is_printed(
    engine: TransformersEngine,
    include: Path,
    results: Mapping[str, CapabilityResult],
    capfd: pytest.CaptureFixture[str],
) -> None:
    again = run_capability(engine, ["words"], include=[include], batch_size=8, description="words")["words"]
    out, err = capfd.readouterr()
    assert (out, [line.split(" in ")[0] for line in err.splitlines()]) == ("", ["words: 8/8 rows"])
    assert again == results["words"]
    assert again.stderr == pytest.approx(bootstrap_stderr(perplexity, list(again.items.values()), 1000))
