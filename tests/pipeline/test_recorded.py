"""Routing that another engine recorded gives the scores and the selection of the run that asked the model itself."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recorded_routing import FORMS, lines, npy, recorded, write

from harness.base.files import read_json
from harness.cli.main import main
from harness.models.load import DEMO_FOLDER
from harness.routing.files import load_counts, save_routing
from harness.runs.run import read_run

SELECT = ("--top-k", "12", "--phase", "decision")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run that asked the demo: three tasks, with matched pairs."""
    folder = tmp_path_factory.mktemp("own") / "run"
    words = ["--tasks", "demo_harmful,demo_benign,demo_twins", "--limit", "24", "--record", "tokens"]
    words += ["--baselines", "none", "--dtype", "float32", "-q", "-o", str(folder)]
    assert main(["select", *words, *SELECT]) == 0
    return folder


@pytest.fixture
def config(tmp_path):
    """A folder with the model's config.json and nothing else."""
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copyfile(DEMO_FOLDER / "config.json", folder / "config.json")
    return folder


def captured(own, tmp_path, config, form="ten_lines_of_vllm"):
    file, run = recorded(own, tmp_path / form, form), tmp_path / f"run-{form}"
    assert main(["capture", "--from", str(file), "--model", str(config), "-o", str(run)]) == 0
    return run


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_gives_the_counts_of_the_run(own, tmp_path, config, form):
    run = captured(own, tmp_path, config, form)
    for task in ("demo_harmful", "demo_benign", "demo_twins"):
        # The run has gate weights and single tokens beside its counts.
        expected = tmp_path / "expected.safetensors"
        save_routing(replace(load_counts(own / "routing" / f"{task}.safetensors"), mass=None), expected)
        assert (run / "routing" / f"{task}.safetensors").read_bytes() == expected.read_bytes()
        assert (run / "routing" / f"{task}.jsonl").read_bytes() == (
            own / "routing" / f"{task}.jsonl"
        ).read_bytes()


def test_scores_and_selection_are_those_of_the_run(own, tmp_path, config, capsys):
    run = captured(own, tmp_path, config)
    assert main(["select", str(run), *SELECT]) == 0
    ours, theirs = (pd.read_parquet(folder / "experts.parquet") for folder in (own, run))
    # Gate weights and single tokens are not recorded elsewhere.
    unknown = ["gate_diff", "cut_diff"]
    pd.testing.assert_frame_equal(ours.drop(columns=unknown), theirs.drop(columns=unknown), check_exact=True)
    assert theirs[unknown].isna().all(axis=None)
    assert theirs["topic_adjusted"].notna().any()
    selection = "variants/unsafe_experts/selection.json"
    assert (own / selection).read_bytes() == (run / selection).read_bytes()
    read_run(run).verify()
    (variant,) = (each for name, each in read_run(run).summary.variants.items() if name != "base")
    assert "recorded elsewhere" in variant.skipped
    assert len(read_run(run).summary.selection.experts) == 12
    assert main(["analyze", str(run)]) == 0
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").is_file()
    capsys.readouterr()
    # Other settings need no other capture, and what needs the model is refused.
    assert main(["select", str(run), "--top-k", "5", "--phase", "all", "-q"]) == 0
    assert len(read_run(run).selection("unsafe_experts").experts) == 5
    assert main(["evaluate", str(run)]) == 2
    assert "recorded elsewhere, without a model to evaluate" in capsys.readouterr().err


def test_prompts_are_found_by_their_text_or_their_id(own, tmp_path, config):
    rows = list(lines(read_run(own), FORMS["ten_lines_of_vllm"]))
    for number, row in enumerate(rows):
        del row["id" if number % 2 else "prompt"]
    run = tmp_path / "run"
    assert main(["capture", "--from", str(write(tmp_path / "a", rows)), "-o", str(run)]) == 0
    assert load_counts(run / "routing/demo_twins.safetensors").ids == tuple(
        row.id for row in read_run(own).captured_answers("demo_twins")
    )
    assert read_json(run / "run.json")["control_tasks"] == ["demo_twins"]


def test_other_prompts_need_their_kind_alone(own, tmp_path, config, capsys):
    rows = list(lines(read_run(own), FORMS["generate_of_sglang"]))
    kinds = {"demo_harmful": "harmful", "demo_benign": "benign"}
    others = [
        {**row, "task": f"my-{row['task']}", "kind": kinds[row["task"]], "id": None}
        for row in rows
        if row["task"] in kinds
    ]
    run = tmp_path / "run"
    words = ["capture", "--from", str(write(tmp_path / "a", others)), "--model", str(config), "-o", str(run)]
    assert main(words) == 0
    assert main(["select", str(run), *SELECT, "-q"]) == 0
    del others[3]["kind"]
    write(tmp_path / "a", others)
    capsys.readouterr()
    assert main(words) == 2
    assert "row 4: kind: missing; expected harmful or benign" in capsys.readouterr().err


def first(rows, **fields):
    return [{**rows[0], **fields}, *rows[1:]]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda rows, good: first(rows, routed_experts=good["routed_experts"][:-3]),
            "row 1: routed_experts: not",
        ),
        (lambda rows, good: first(rows, generated_tokens=99), "row 1: routed_experts: "),
        (lambda rows, good: first(rows, id="nobody"), "row 1: id: task demo_harmful has no prompt 'nobody'"),
        (lambda rows, good: first(rows, prompt="Other"), "row 1: prompt: not that of"),
        (lambda rows, good: first(rows, kind="benign"), "row 1: kind: task demo_harmful is harmful"),
        (lambda rows, good: [rows[0], *rows], "row 2: prompt"),
        (
            lambda rows, good: first(rows, routed_experts=npy(np.zeros((1, 4, 2), int))),
            "row 1: routed_experts: 1 tok",
        ),
        (lambda rows, good: [], "expected one answered prompt per line, found none"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(own, tmp_path, config, capsys, change, problem):
    rows = list(lines(read_run(own), FORMS["ten_lines_of_vllm"]))
    file, run = write(tmp_path / "bad", change(rows, rows[0])), tmp_path / "run"
    capsys.readouterr()
    assert main(["capture", "--from", str(file), "--model", str(config), "-o", str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
    assert not run.exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--model", "Qwen/Qwen3-30B-A3B"], "recorded routing needs a folder with the model's config.json"),
        (["--intervention", "system_prompt"], "selects no experts by their routing"),
        (["--tasks", "demo_harmful"], "expected neither --tasks nor --dry-run"),
        (["elsewhere"], "two run folders are named"),
    ],
)
def test_settings_that_do_not_fit_are_refused(own, tmp_path, capsys, words, problem):
    file = recorded(own, tmp_path / "file")
    capsys.readouterr()
    assert main(["capture", "--from", str(file), *words, "-o", str(tmp_path / "run")]) == 2
    assert problem in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_asked_its_model_is_not_overwritten(own, tmp_path, capsys):
    assert main(["capture", "--from", str(recorded(own, tmp_path)), "-o", str(own)]) == 2
    assert "holds a run that asked its model" in capsys.readouterr().err


def test_gate_weighted_scores_say_what_is_missing(own, tmp_path, config, capsys):
    run = captured(own, tmp_path, config)
    assert main(["select", str(run), "--method", "gate_weighted"]) == 2
    assert "no 'gate_diff' in this phase" in capsys.readouterr().err


PAGE = Path(__file__).resolve().parents[2] / "docs" / "recorded-routing.md"


def written_by_the_page(engine: str) -> dict[str, Any]:
    """Return what the code under a heading of the page defines."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## From {engine}")[2]
    (code, *_) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    defined: dict[str, Any] = {}
    exec(code, defined)
    return defined


def test_the_lines_for_vllm_write_what_is_read(own, tmp_path):
    line = written_by_the_page("vLLM")["line"]
    run, rows = read_run(own), []
    for row in run.captured_answers("demo_harmful"):
        routed = run.tokens("demo_harmful").of(row.id).experts
        answer = SimpleNamespace(
            text=row.response, token_ids=[0] * row.generated_tokens, routed_experts=routed
        )
        output = SimpleNamespace(prompt_token_ids=[0] * row.prompt_tokens, outputs=[answer])
        rows.append(json.loads(line("demo_harmful", row.prompt, output)))
    assert main(["capture", "--from", str(write(tmp_path, rows)), "-o", str(tmp_path / "run")]) == 0
    np.testing.assert_array_equal(
        load_counts(tmp_path / "run/routing/demo_harmful.safetensors").counts,
        run.routing("demo_harmful").counts[:, :3],
    )


def test_the_lines_for_sglang_write_what_is_read(own, tmp_path, monkeypatch):
    defined = written_by_the_page("SGLang")
    run = read_run(own)
    (row, *_) = run.captured_answers("demo_harmful")
    said = FORMS["generate_of_sglang"](row, run.tokens("demo_harmful").of(row.id).experts)["response"]

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert asked["return_routed_experts"] is True
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(said).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    Thread(target=server.handle_request, daemon=True).start()
    post = defined["requests"].post
    here = f"http://127.0.0.1:{server.server_port}/generate"
    monkeypatch.setattr(defined["requests"], "post", lambda url, **how: post(here, **how))
    line = json.loads(defined["line"]("demo_harmful", row.prompt, "the same, rendered"))
    server.server_close()
    assert main(["capture", "--from", str(write(tmp_path, [line])), "-o", str(tmp_path / "run")]) == 0
