"""inspect_ai's own library reads our logs, asks our variants, and its logs become runs of ours."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from harness.base.files import read_jsonl
from harness.cli.main import main
from harness.runs.run import read_run

pytest.importorskip("inspect_ai")
pytestmark = [pytest.mark.integrations, pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect") / "run"
    words = ["run", "--intervention", "unsafe_experts", "--baselines", "system_prompt,steer", "--limit", "24"]
    assert (
        main([*words, "--tasks", "demo_harmful,demo_benign", "--capability", "none", "-o", str(folder)]) == 0
    )
    return folder


def of(logs, variant):
    return sorted(map(str, logs.glob(f"*-{variant}_*.eval")))


def test_each_variant_and_task_is_a_log_with_answers_verdicts_and_versions(run, logs):
    from inspect_ai.log import list_eval_logs, read_eval_log

    assert len(list_eval_logs(str(logs))) == 2 * 4
    (path,) = logs.glob("*demo-harmful-system-prompt_*.eval")
    log, opened = read_eval_log(path), read_run(run)
    assert (log.status, log.eval.task, log.eval.model) == (
        "success",
        "demo_harmful",
        "harness/demo@system_prompt",
    )
    assert log.eval.packages == opened.record.versions
    assert {sample.id: sample.output.completion for sample in log.samples} == {
        answer.id: answer.response for answer in opened.answers("system_prompt", "demo_harmful")
    }
    assert log.samples[0].messages[0].role == "system"
    for verdict in opened.verdicts("system_prompt", "demo_harmful"):
        (sample,) = (each for each in log.samples if each.id == verdict.id)
        assert sample.scores["builtin"].answer == verdict.label


def test_an_unscored_verdict_is_unscored_there():
    from harness.inspect.output import score_of
    from harness.judges.base import Verdict

    score = score_of(Verdict("1", None, reason="empty answer"))
    assert math.isnan(score.value)
    assert score.reason == "empty answer"


def test_imported_logs_give_the_comparison_of_the_run_that_they_came_from(run, logs, tmp_path):
    assert (
        main(["import", *of(logs, "base"), *of(logs, "unsafe-experts"), "-o", str(tmp_path / "again")]) == 0
    )
    ours, theirs = (read_run(folder).summary for folder in (run, tmp_path / "again"))
    wanted = [row for row in ours.comparisons if (row.variant, row.against) == ("unsafe_experts", "base")]
    assert wanted
    found = {(row.task, row.metric): row for row in theirs.comparisons}
    assert found == {(row.task, row.metric): row for row in wanted}


@pytest.mark.parametrize("variant", ["base", "system_prompt", "steer", "unsafe_experts"])
def test_a_variant_answers_there_as_in_the_run(run, tmp_path, variant):
    from inspect_ai import eval

    model = f"harness/{run}@{variant}"
    (log,) = eval(
        "harness/demo_harmful",
        model=model,
        task_args={"run": str(run)},
        log_dir=str(tmp_path),
        display="none",
    )
    assert log.status == "success"
    answers = {answer.id: answer.response for answer in read_run(run).answers(variant, "demo_harmful")}
    given = {sample.id: sample.output.completion for sample in log.samples}
    assert given.keys() == answers.keys()
    # A batch of one is padded otherwise than the run's: hardly an answer may differ.
    assert sum(given[id] == answers[id] for id in answers) >= len(answers) - 2


def test_a_task_over_an_example_dataset_of_theirs_completes_and_is_imported(run, tmp_path, capsys):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import example_dataset
    from inspect_ai.scorer import includes

    task = Task(dataset=example_dataset("security_guide"), scorer=includes(), name="security_guide")
    for variant in ("base", "unsafe_experts"):
        (log,) = eval(
            task,
            model=f"harness/{run}@{variant}",
            max_tokens=16,
            log_dir=str(tmp_path / variant),
            display="none",
        )
        assert log.status == "success"
    words = ["import", str(tmp_path / "base"), str(tmp_path / "unsafe_experts"), "-o", str(tmp_path / "run")]
    capsys.readouterr()
    assert main(words) == 2
    assert "expected --harmful security_guide or --benign security_guide" in capsys.readouterr().err
    assert main([*words, "--benign", "security_guide"]) == 0
    assert len(read_jsonl(tmp_path / "run/variants/base/responses/security_guide.jsonl")) == 16
    assert main(["check", str(tmp_path / "run"), "--gates", str(gates(tmp_path))]) == 0


def gates(folder):
    path = folder / "gates.yaml"
    path.write_text(
        "gates: [{name: one, metric: refusal_rate, task: security_guide, variant: base, at_most: 0.5}]"
    )
    return path


def of_another_version(path):
    log = json.loads(path.read_text())
    path.write_text(json.dumps(log | {"version": 9}))


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def no_log(path):
    path.write_text('{"a": 1}')


@pytest.mark.parametrize("damage", [of_another_version, cut, no_log])
def test_a_log_that_cannot_be_read_is_one_line(logs, tmp_path, capsys, damage):
    from inspect_ai.log import read_eval_log, write_eval_log

    (path,) = logs.glob("*demo-harmful-base_*.eval")
    write_eval_log(read_eval_log(path), tmp_path / "log.json", format="json")
    damage(tmp_path / "log.json")
    assert main(["import", str(tmp_path / "log.json"), "-o", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "log.json" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_same_variant_twice_and_other_prompts_are_refused(logs, tmp_path, capsys):
    (path,) = logs.glob("*demo-harmful-base_*.eval")
    copy = shutil.copy(path, tmp_path / "copy.eval")
    assert main(["import", str(path), str(copy), "-o", str(tmp_path / "run")]) == 2
    assert "name them, as in before=" in capsys.readouterr().err
    assert main(["import", str(path), f"later={copy}", "-o", str(tmp_path / "run")]) == 0
