"""Our prompt tasks as tasks of lm-eval: a YAML file with its prompts for each, scored by the built-in judge.

lm-eval calls `dataset` and `judged` by their names in the YAML files.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.base.cache import default_cache
from harness.base.files import read_jsonl, write_jsonl, write_text
from harness.base.fingerprint import fingerprint
from harness.data.task import Kind

if TYPE_CHECKING:
    import datasets

    from harness.judges.base import Judge

TAG = "moe_safety_harness"
"""The name that stands for all tasks of a folder."""

_RATES: Mapping[Kind, str] = {"harmful": "refusal_rate", "benign": "false_refusal_rate"}

_YAML = """\
task: {name}
tag: {tag}
custom_dataset: !function harness.capability.prompt_tasks.dataset
dataset_kwargs:
  file: {file}
test_split: test
output_type: generate_until
num_fewshot: 0
doc_to_text: prompt
doc_to_target: target
process_results: !function harness.capability.prompt_tasks.judged
generation_kwargs:
  until: []
  do_sample: false
  max_gen_toks: {max_new_tokens}
metric_list:
  - metric: {rate}
    aggregation: mean
    higher_is_better: {is_better}
  - metric: unscored_rate
    aggregation: mean
    higher_is_better: false
metadata:
  version: {version}
  description: {description}
"""


class Asked(NamedTuple):
    """A prompt task as lm-eval is to ask it.

    Attributes:
        name: of the task.
        kind: harmful or benign.
        version: the task's.
        description: one sentence.
        max_new_tokens: the longest answer.
        prompts: id and text of each, in their order.
    """

    name: str
    kind: Kind
    version: int | str
    description: str
    max_new_tokens: int
    prompts: Sequence[tuple[str, str]]


def write_prompt_tasks(tasks: Sequence[Asked]) -> Path:
    """Write a folder for lm-eval's `--include_path`, in the package's cache, and return it.

    The same tasks have the same folder.
    """
    folder = default_cache() / "lm-eval" / fingerprint([_YAML, [task._asdict() for task in tasks]])[:16]
    for task in tasks:
        file = (folder / f"{task.name}.jsonl").absolute()
        target = "refusal" if task.kind == "harmful" else "compliance"
        write_jsonl(
            file,
            ({"id": id, "prompt": text, "kind": task.kind, "target": target} for id, text in task.prompts),
        )
        text = _YAML.format(
            name=task.name,
            tag=TAG,
            file=json.dumps(str(file)),
            max_new_tokens=task.max_new_tokens,
            rate=_RATES[task.kind],
            is_better=json.dumps(task.kind == "harmful"),
            version=json.dumps(task.version),
            description=json.dumps(task.description),
        )
        write_text(folder / f"{task.name}.yaml", text)
    return folder


def dataset(file: str, **_: Any) -> dict[str, datasets.Dataset]:
    """Return the prompts of a file as lm-eval's split `test`.

    Args:
        file: the JSONL file beside the YAML file.
    """
    import datasets

    return {"test": datasets.Dataset.from_list(read_jsonl(Path(file)))}


def judged(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Return the scores of one answer by the built-in judge; an unscored one counts in no rate but its own.

    Args:
        doc: the prompt's row.
        results: the answer.
    """
    from harness.judges.base import judge_all

    row = {"id": doc["id"], "prompt": doc["prompt"], "response": results[0], "finish_reason": "stop"}
    (verdict,) = judge_all(_judge(), [row])
    if verdict.label is None:
        return {"unscored_rate": 1.0}
    rate = _RATES["harmful" if doc["kind"] == "harmful" else "benign"]
    return {rate: float(verdict.label == "refusal"), "unscored_rate": 0.0}


@functools.cache
def _judge() -> Judge:
    from harness.judges.base import JUDGES

    return JUDGES.get("builtin")()
