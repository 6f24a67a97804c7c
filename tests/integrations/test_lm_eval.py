"""lm-eval's own program asks our prompt tasks, and what it saves becomes the capability of a run's variants."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

from harness.base.files import read_json, read_jsonl, write_json
from harness.capability.prepare import prepare_tasks
from harness.capability.tasks import list_capability_tasks
from harness.cli.main import main
from harness.models.load import DEMO_FOLDER
from harness.runs.protocol import protocols
from harness.runs.run import read_run

pytestmark = [pytest.mark.integrations, pytest.mark.slow, pytest.mark.filterwarnings("default")]

TASKS = "demo_harmful,demo_benign"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm_eval") / "run"
    words = [
        "run",
        "--intervention",
        "system_prompt",
        "--baselines",
        "none",
        "--limit",
        "24",
        "--tasks",
        TASKS,
    ]
    assert main([*words, "--dtype", "float32", "--capability", "none", "-o", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def tasks(run, cache):
    """What is in the folder that `harness tasks path` prints, and beside it a task of lm-eval's own form."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["tasks", "path", "--run", str(run)]) == 0
    printed = Path(out.getvalue().strip())
    folder = run.parent / "tasks"
    shutil.copytree(printed, folder / "ours")
    prepare_tasks([list_capability_tasks()["demo_facts"]], [], folder / "theirs")
    return folder


def by_its_program(tasks, output, *more):
    """Run lm-eval's program on the demo and return its file of results."""
    words = [
        "run",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={DEMO_FOLDER},dtype=float32",
        "--device",
        "cpu",
    ]
    words += ["--include_path", str(tasks), "--batch_size", "32", "--output_path", str(output)]
    done = subprocess.run([sys.executable, "-m", "lm_eval", *words, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (results,) = output.glob("*/results_*.json")
    return results


def by_its_library(tasks, output, names, **how):
    """Do the same without looking through lm-eval's own tasks, which takes the program long."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    model, tracker = f"pretrained={DEMO_FOLDER},dtype=float32", EvaluationTracker(output_path=str(output))
    results = simple_evaluate(
        model="hf",
        model_args=model,
        tasks=names,
        device="cpu",
        batch_size=32,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        evaluation_tracker=tracker,
        **how,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for name in names:
        tracker.save_results_samples(task_name=name, samples=samples[name])
    (saved,) = output.glob("*/results_*.json")
    return saved


@pytest.fixture(scope="module")
def by_prompt(run, tasks, tmp_path_factory):
    """lm-eval's results of our prompt tasks: as base, and under the system prompt of the run's variant."""
    said = read_run(run).variants["system_prompt"]["system_prompt"]
    asked = ("--tasks", TASKS, "--apply_chat_template", "--log_samples")
    told = {"apply_chat_template": True, "system_instruction": said}
    return {
        "base": by_its_program(tasks, tmp_path_factory.mktemp("base"), *asked),
        "system_prompt": by_its_library(tasks, tmp_path_factory.mktemp("told"), TASKS.split(","), **told),
    }


@pytest.fixture(scope="module")
def facts(tasks, tmp_path_factory):
    """lm-eval's results of a capability task, with samples; its items are chats, as the task's file has it here."""
    output = tmp_path_factory.mktemp("facts")
    return by_its_library(tasks, output, ["demo_facts"], apply_chat_template=True)


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def test_refusal_is_that_of_our_own_run(run, by_prompt):
    rates = {}
    for variant, path in by_prompt.items():
        saved = read_json(path)
        assert saved["higher_is_better"]["demo_harmful"]["refusal_rate"] is True
        assert saved["higher_is_better"]["demo_benign"]["false_refusal_rate"] is False
        for task, metric in (("demo_harmful", "refusal_rate"), ("demo_benign", "false_refusal_rate")):
            (ours,) = (
                row
                for row in read_run(run).summary.measurements
                if (row.variant, row.task, row.metric, row.judge)
                == (variant, task, "refusal_rate", "builtin")
            )
            assert saved["results"][task][f"{metric},none"] == pytest.approx(ours.value)
            rates[variant, task] = ours.value
            answers = {answer.id: answer.response for answer in read_run(run).answers(variant, task)}
            samples = read_jsonl(next(path.parent.glob(f"samples_{task}_*.jsonl")))
            assert {sample["doc"]["id"]: sample["resps"][0][0].strip() for sample in samples} == answers
    assert rates["base", "demo_harmful"] < 0.5 < rates["system_prompt", "demo_harmful"]


def test_without_a_run_the_prompts_are_those_that_it_would_test_with(run, cache, capsys):
    assert main(["tasks", "path", "--tasks", TASKS]) == 0
    folder = Path(capsys.readouterr().out.strip())
    written = yaml.load((folder / "demo_benign.yaml").read_text().replace("!function ", ""), yaml.SafeLoader)
    assert written["metric_list"][0] == {
        "metric": "false_refusal_rate",
        "aggregation": "mean",
        "higher_is_better": False,
    }
    ids = [row["id"] for row in read_jsonl(folder / "demo_benign.jsonl")]
    assert ids[:24] == read_run(run).splits.tasks["demo_benign"].ids["test"]


def test_results_become_capability_that_is_compared_item_by_item(copy, facts, capsys):
    assert main(["import", str(facts), f"system_prompt={facts}", "-o", str(copy)]) == 0
    opened = read_run(copy)
    opened.verify()
    imported = opened.capability("base")["demo_facts"]
    saved = read_json(facts)["results"]["demo_facts"]
    assert (imported.value, imported.n, len(imported.items)) == (saved["acc,none"], 120, 120)
    assert (imported.is_mean, imported.interval) == (True, "wilson")
    (row,) = (row for row in opened.summary.comparisons if row.task == "demo_facts")
    assert (row.difference, row.n, row.verdict) == (0, 120, "no worse")
    assert protocols(opened)["demo_facts"].prompts == "120 items, limit None"
    assert "taken as 'system_prompt' on your word" in capsys.readouterr().err
    # What is measured again, and evaluated again, keeps it.
    assert main(["evaluate", str(copy), "-q"]) == 0
    assert read_run(copy).capability("base")["demo_facts"] == imported
    # Of other settings it is not.
    assert main(["evaluate", str(copy), "--max-new-tokens", "6", "-q"]) == 0
    assert not read_run(copy).capability("base")
    assert "capability.imported.json is of other settings: removed" in capsys.readouterr().err


def test_the_figure_is_the_one_that_the_run_measures_itself(copy, facts, tmp_path):
    words = ["compare", "demo", "demo", "--limit", "10", "--tasks", TASKS, "--dtype", "float32", "-q"]
    assert main([*words, "--capability", "demo_facts", "-o", str(tmp_path / "own")]) == 0
    own = read_run(tmp_path / "own").capability("base")["demo_facts"]
    assert main(["import", str(facts), "-o", str(copy)]) == 0
    assert read_run(copy).capability("base")["demo_facts"].items == own.items


def test_without_samples_the_rate_is_shown_and_not_compared(copy, facts, tmp_path, capsys):
    alone = tmp_path / facts.name
    shutil.copyfile(facts, alone)
    assert main(["import", str(alone), f"system_prompt={alone}", "-o", str(copy)]) == 0
    assert "demo_facts has no samples beside it" in capsys.readouterr().err
    opened = read_run(copy)
    shown = [row for row in opened.summary.measurements if row.task == "demo_facts"]
    assert [(row.variant, row.n) for row in shown] == [("base", 120), ("system_prompt", 120)]
    assert not [row for row in opened.summary.comparisons if row.task == "demo_facts"]


def changed(facts, folder, **fields):
    """Return a copy of results, with its samples, in which some fields differ."""
    folder.mkdir()
    for file in facts.parent.glob("*.json*"):
        shutil.copyfile(file, folder / file.name)
    write_json(folder / facts.name, read_json(facts) | fields)
    return folder / facts.name


def test_other_models_and_versions_are_said(copy, facts, tmp_path, capsys):
    other = changed(facts, tmp_path / "other", lm_eval_version="0.4.9", model_name="someone/else")
    assert main(["import", f"base={other}", "-o", str(copy)]) == 0
    said = capsys.readouterr().err
    assert "is of someone/else, the run's base is demo" in said
    assert "was made with lm-eval 0.4.9" in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["{other}"], "is of someone/else, the run's model is demo: name the variant"),
        (["sytem_prompt={facts}"], "no variant 'sytem_prompt', did you mean 'system_prompt'?"),
        (["base={facts}", "system_prompt={few}"], "cannot be compared on demo_facts: num_fewshot (0 and 5)"),
        (["{facts}", "x.eval"], "holds results of lm-eval, x.eval does not"),
        (["{facts}", "--judge", "builtin"], "--judge, --harmful and --benign are for logs of answers"),
        (["{empty}"], "results: expected at least one task"),
        (["{lost}"], "samples are beside it, expected 120"),
    ],
)
def test_what_cannot_be_imported_is_one_line(copy, facts, tmp_path, capsys, words, line):
    files = {
        "facts": facts,
        "other": changed(facts, tmp_path / "other", model_name="someone/else"),
        "few": changed(facts, tmp_path / "few", **{"n-shot": {"demo_facts": 5}}),
        "empty": changed(facts, tmp_path / "empty", results={}),
        "lost": changed(facts, tmp_path / "lost"),
    }
    (samples,) = files["lost"].parent.glob("samples_*.jsonl")
    samples.write_text("".join(f"{json.dumps(row)}\n" for row in read_jsonl(samples)[:-1]))
    capsys.readouterr()
    assert main(["import", *(word.format(**files) for word in words), "-o", str(copy)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
    assert not read_run(copy).capability("base")


def test_results_without_a_run_to_take_them_are_refused(facts, tmp_path, capsys):
    assert main(["import", str(facts), "-o", str(tmp_path / "new")]) == 2
    assert "expected --output with the folder of a finished run" in capsys.readouterr().err
