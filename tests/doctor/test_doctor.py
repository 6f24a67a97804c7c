"""`harness doctor`: what it says of a machine and of a model, when it says that a run cannot go, and what it hides."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from packed import pack_fp8

from harness.cli.main import main
from harness.doctor import machine, model
from harness.models.load import DEMO_FOLDER

ROOT = Path(__file__).resolve().parents[2]
EMPTY = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


@pytest.fixture
def copy(tmp_path):
    """A copy of the demo's checkpoint, to change."""
    return Path(shutil.copytree(DEMO_FOLDER, tmp_path / "copy"))


@pytest.fixture
def asked(capsys):
    """Return the exit code and the JSON of `harness doctor`."""

    def ask(*words: object) -> tuple[int, dict]:
        code = main(["doctor", *map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return ask


def parses(command: str) -> None:
    """Check that a suggested command line is one: `--dry-run` would read it."""
    import typer.main

    from harness.cli.main import app

    name, *words = shlex.split(command)
    found = typer.main.get_command(app)
    assert name == "harness"
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)


def test_the_machine_is_described_and_nothing_stops_a_run(asked):
    code, found = asked()
    assert code == 0
    assert found["problems"] == []
    assert found["model"] is None
    assert found["versions"]["torch"]
    assert found["device"]["cores"] >= 1
    assert found["device"]["memory_bytes"] > found["device"]["memory_free_bytes"] > 0
    assert {row["extra"] for row in found["extras"]} >= {"gguf", "ray", "vllm"}
    assert {row["engine"]: row["unusable"] for row in found["engines"]}["transformers"] is None


def test_no_model_is_loaded_and_no_heavy_library_but_torch():
    heavy = ("datasets", "lm_eval", "sklearn", "statsmodels", "scipy", "transformers.models")
    code = (
        "import sys; from harness.cli.main import main; assert main(['doctor']) == 0;"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_wrong_version_stops_a_run(asked, monkeypatch):
    monkeypatch.setattr(
        machine, "requires", lambda name: ["pandas>=99", "nowhere>=1", "rich", "x; extra == 'dev'"]
    )
    code, found = asked()
    assert code == 1
    pandas, nowhere = found["problems"]
    assert pandas.startswith("pandas ")
    assert pandas.endswith("is installed, expected >=99")
    assert nowhere == "nowhere is not installed, expected >=1"


def test_data_are_shipped_in_a_folder_or_missing(asked, tmp_path):
    (tmp_path / "advbench").mkdir()
    (tmp_path / "advbench" / "harmful_behaviors.csv").write_text("goal\n")
    _, found = asked("--data-dir", tmp_path)
    rows = {row["task"]: row for row in found["data"]}
    assert rows["demo_harmful"]["data"] == "shipped"
    assert rows["advbench"] == {"task": "advbench", "kind": "harmful", "data": "data folder", "missing": None}
    assert rows["harmbench_standard"]["data"] == "missing"
    assert rows["harmbench_standard"]["missing"] == "harmbench/harmbench_behaviors_text_all.csv"
    assert rows["sorry_bench"]["data"] == "hub, after a login"
    assert rows["piqa_local"]["missing"] == "piqa/valid.jsonl"


def test_a_set_in_the_hubs_cache_is_at_hand(asked, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "datasets--walledai--AdvBench" / "snapshots" / "0123").mkdir(parents=True)
    (tmp_path / "models--NousResearch--Minos-v1" / "snapshots" / "0123").mkdir(parents=True)
    _, found = asked()
    assert {row["task"]: row["data"] for row in found["data"]}["advbench"] == "cached"
    needs = {row["judge"]: row["needs"] for row in found["judges"]}
    assert needs["minos"] is None
    assert needs["llama_guard"] == "meta-llama/Llama-Guard-3-8B is not here: it comes from the hub"


def test_judges_say_what_they_need(asked, monkeypatch):
    for name in ("HARNESS_LLM_MODEL", "HARNESS_LLM_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    needs = {row["judge"]: row["needs"] for row in asked()[1]["judges"]}
    assert needs["builtin"] is None
    assert needs["keyword"] is None
    assert needs["llm"].startswith("HARNESS_LLM_MODEL is not set")
    assert needs["wildguard"] == "allenai/wildguard is not here: it comes from the hub"
    monkeypatch.setenv("HARNESS_LLM_MODEL", "judge")
    monkeypatch.setenv("HARNESS_LLM_BASE_URL", "http://127.0.0.1:1/v1")
    assert {row["judge"]: row["needs"] for row in asked()[1]["judges"]}["llm"] is None


def test_no_secret_is_printed(capsys, monkeypatch):
    from huggingface_hub import constants

    secrets = {
        "HF_TOKEN": "hf_averysecrettoken",
        "OPENAI_API_KEY": "sk-averysecretkey",
        "HARNESS_LLM_MODEL": "judge",
        "HARNESS_LLM_BASE_URL": "http://user:averysecretpassword@127.0.0.1:1/v1?key=averysecretquery",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "ENDPOINT", "http://user:averysecretpassword@127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for words in (["doctor"], ["doctor", "demo"], ["doctor", "--json"]):
        assert main(words) == 0
        printed = capsys.readouterr()
        assert "averysecret" not in printed.out + printed.err
    assert json.loads(printed.out)["hub"]["has_token"] is True


def test_a_hub_that_never_answers_costs_three_seconds(monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        began = time.monotonic()
        assert machine.hub()["state"] == "unreachable"
        assert time.monotonic() - began < machine.HUB_TIMEOUT + 1


def test_a_hub_that_refuses_is_reachable_and_an_offline_one_is_not_asked(monkeypatch):
    from huggingface_hub import constants

    asked = []

    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.headers.get("Authorization"))
            self.send_error(403)

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert machine.hub()["state"] == "offline"
        assert asked == []
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        assert machine.hub()["state"] == "reachable"
        # No token goes along.
        assert asked == [None]
        server.shutdown()


def test_the_demo_wants_no_thinking_and_its_own_settings(asked):
    code, found = asked("demo")
    demo = found["model"]
    assert code == 0
    assert demo["thinking"]["state"] == "none"
    assert (len(demo["moe_layers"]), demo["experts_per_layer"], demo["experts_per_token"]) == (4, 32, 2)
    assert demo["commands"] == ["harness run --model demo --output runs/demo"]
    # 12 experts of 24,576 parameters by its preset; 20 bytes for each trained one.
    assert demo["memory"]["trained_experts"] == 12
    assert demo["memory"]["train_bytes"] > demo["memory"]["evaluate_bytes"] + 12 * 24_576 * 20


def test_the_memory_is_that_of_the_dry_runs_parts(asked):
    memory = asked("demo")[1]["model"]["memory"]
    # 3,552,128 parameters in the preset's float32, the mapped file in bfloat16, and a process with its libraries.
    weights = (DEMO_FOLDER / "model.safetensors").stat().st_size
    assert memory["evaluate_bytes"] == 3_552_128 * 4 + weights + 800_000_000


@pytest.mark.parametrize(
    ("template", "state", "option"),
    [
        ("", "none", None),
        (EMPTY, "optional", "--thinking off"),
        ("<think>\n", "always", "--reasoning-tokens 1024"),
    ],
)
def test_thinking_is_none_optional_or_always_and_the_command_handles_it(asked, copy, template, state, option):
    path = copy / "chat_template.jinja"
    before, end = path.read_text().rsplit("{% endif %}", 1)
    path.write_text(f"{before}{template}{{% endif %}}{end}")
    code, found = asked(copy)
    assert code == 0
    assert found["model"]["thinking"]["state"] == state
    (command,) = found["model"]["commands"]
    parses(command)
    assert f"--model {copy}" in command
    assert option is None or option in command
    # Offline and without a data folder, what is shipped is all that there is.
    assert "--tasks demo_harmful,demo_benign,demo_twins" in command


def test_the_suggested_command_takes_the_data_that_are_at_hand(asked, copy, tmp_path):
    data = tmp_path / "data"
    for name in (
        "advbench/harmful_behaviors.csv",
        "alpaca/alpaca_2k.json",
        "piqa/valid.jsonl",
        "piqa/valid-labels.lst",
    ):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("")
    (command,) = asked(copy, "--data-dir", data)[1]["model"]["commands"]
    parses(command)
    assert f"--tasks advbench,alpaca --capability piqa --data-dir {data}" in command


def test_a_quantised_checkpoint_is_dequantised_first(asked, copy):
    pack_fp8(copy)
    code, found = asked(copy)
    assert code == 0
    first, then = found["model"]["commands"]
    assert first == f"harness models dequantize {copy} copy-bf16"
    assert "harness run --model copy-bf16" in then
    for command in (first, then):
        parses(command)
    assert "is quantized (fp8)" in found["model"]["not_trained"]


def test_a_dense_model_is_compared(asked, saved_model):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    code, found = asked(saved_model(LlamaForCausalLM(LlamaConfig(vocab_size=1500, eos_token_id=2, **sizes))))
    assert code == 0
    (command,) = found["model"]["commands"]
    assert command.startswith("harness compare ")
    parses(command)


def test_what_stops_a_run_of_a_model_is_exit_code_1(asked, copy, capsys):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    code, found = asked(copy)
    assert code == 1
    assert "not a whole safetensors file" in found["problems"][0]
    assert main(["doctor", str(copy)]) == 1
    assert "what stops a run" in capsys.readouterr().out


def test_a_model_that_does_not_fit_is_exit_code_1_and_a_training_that_does_not_is_said(asked, monkeypatch):
    monkeypatch.setattr(model, "available_bytes", lambda device: 10**7)
    code, found = asked("demo")
    assert code == 1
    assert found["problems"] == ["the weights take 14.2 MB in memory, the device has 10.0 MB"]
    assert "training" in found["model"]["memory"]["train_does_not_fit"]


@pytest.mark.parametrize("words", [["nowhere/at/all"], ["demo", "--data-dir", "nowhere"]])
def test_what_is_not_there_is_bad_input(words, capsys):
    assert main(["doctor", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_for_people_it_says_what_can_be_installed_and_what_to_type(capsys):
    assert main(["doctor", "demo"]) == 0
    printed = capsys.readouterr().out
    for words in (
        "GPU",
        "hub",
        "offline",
        "shipped with the package",
        "thinking",
        "4 MoE layers, 32 experts each",
    ):
        assert words in printed
    assert printed.splitlines()[-1] == "harness run --model demo --output runs/demo"


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_name_that_is_to_be_typed_is_never_broken(width, monkeypatch):
    from harness.doctor import check, show

    found = check.check("demo")
    monkeypatch.setattr(show, "width_of_terminal", lambda: width)
    lines = list(show.lines(found))
    words = set(" ".join(lines).replace(",", " ").replace(":", " ").split())
    assert {row["task"] for row in found["data"]} | {row["judge"] for row in found["judges"]} <= words
    assert max(map(len, lines)) <= width


def test_a_set_of_which_only_some_files_are_there_is_missing(asked, tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "two.yaml").write_text(
        "name: two\nkind: benign\ndescription: d\nsource: {files: [a.csv, b.csv], hub: {path: o/n, split: test}}\n"
        "prompt: {column: p}\nlicence: l\ncitation: c\n"
    )
    (tmp_path / "a.csv").write_text("p\nHello?\n")
    _, found = asked("--include", tmp_path, "--data-dir", tmp_path)
    assert {row["task"]: row for row in found["data"]}["two"] == {
        "task": "two",
        "kind": "benign",
        "data": "missing",
        "missing": "b.csv",
    }
