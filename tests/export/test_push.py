"""`harness models push`: what arrives on a Hub, what comes back, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml
from hub_server import TOKEN, running_hub

from harness.base.files import read_json, sha256, write_json
from harness.cli.main import main
from harness.models.load import DEMO_FOLDER
from harness.runs.run_folder import RunFolder

REPOSITORY = "lab/demo-experts"


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def variant(small_run):
    return small_run / "variants/unsafe_experts"


@pytest.fixture
def models(hub, tmp_path):
    """Run `harness models ...` in a process of its own, which sees the Hub of the test."""

    def run(*words: object, token: str | None = TOKEN, xet: bool = False) -> subprocess.CompletedProcess[str]:
        env = {
            name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")
        }
        env |= {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": str(int(not xet)),
        }
        env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        done = subprocess.run(
            [sys.executable, "-m", "harness", "models", *map(str, words)],
            env=env if token is None else env | {"HF_TOKEN": token},
            capture_output=True,
            text=True,
            check=False,
        )
        assert TOKEN not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def refused(capsys, tmp_path):
    """Refuse a push in this process, which sees no Hub; returns the line."""

    def run(*words: object, code: int = 2) -> str:
        capsys.readouterr()
        assert main(["models", "push", *map(str, words)]) == code
        said = capsys.readouterr()
        (line,) = [line for line in said.err.splitlines() if line.startswith("harness: ")]
        assert said.out == ""
        return line

    return run


@pytest.fixture
def copied(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


def front_and_text(card: str) -> tuple[dict, str]:
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


@pytest.mark.slow
def test_a_pushed_delta_arrives_whole_and_applies_to_the_same_checkpoint_as_the_local_one(
    hub, models, variant, tmp_path
):
    done = models("push", variant, REPOSITORY, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    repository = hub.repositories[REPOSITORY]
    there = repository.files("main")
    names = ["README.md", "delta.json", "delta.safetensors", "proof.json"]
    assert told["files"] == names
    assert sorted(there) == [".gitattributes", *names]
    for name in names[1:]:
        assert there[name] == (variant / name).read_bytes()
    # Nothing is published unasked.
    assert (repository.private, told["private"]) == (True, True)
    assert told["url"].startswith(f"{hub.url}/{REPOSITORY}/commit/")
    assert repository.messages[-1].startswith("Push unsafe_experts of run ")

    applied = models("apply", "demo", f"hf://{REPOSITORY}@main", tmp_path / "far")
    assert applied.returncode == 0, applied.stderr
    assert main(["models", "apply", "demo", str(variant), str(tmp_path / "near")]) == 0
    files = {path.name for path in DEMO_FOLDER.iterdir()}
    assert {path.name for path in (tmp_path / "far").iterdir()} == files
    for name in files - {"README.md"}:
        assert (tmp_path / "far" / name).read_bytes() == (tmp_path / "near" / name).read_bytes()

    # Others cannot read it; what the owner downloaded is in the cache.
    shutil.rmtree(tmp_path / "home")
    for token in ("hf_" + "x" * 30, None):
        none = models("apply", "demo", f"hf://{REPOSITORY}", tmp_path / "no", token=token)
        assert none.returncode == 2
        assert none.stderr.startswith(f"harness: hf://{REPOSITORY}: ")
        assert none.stderr.count("\n") == 1


@pytest.mark.slow
def test_by_xet_the_same_files_arrive_and_a_server_without_it_is_one_line_with_the_remedy(
    hub, models, variant
):
    done = models("push", variant, REPOSITORY, xet=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "404" in line
    assert line.endswith("a server without Xet storage takes files with HF_HUB_DISABLE_XET=1")
    hub.has_xet = True
    done = models("push", variant, REPOSITORY, xet=True)
    assert done.returncode == 0, done.stderr
    assert any("/xet/v1/xorbs/" in request for request in hub.requests)
    assert not any("/lfs/" in request for request in hub.requests)
    there = hub.repositories[REPOSITORY].files("main")
    for name in ("delta.json", "delta.safetensors", "proof.json"):
        assert there[name] == (variant / name).read_bytes()


@pytest.mark.slow
def test_a_merged_checkpoint_is_what_apply_writes(hub, models, small_run, variant, tmp_path):
    done = models(
        *("push", variant, REPOSITORY, "--merged", "--public", "--revision", "v1", "-m", "First try"),
        *("--base-model", "lab/demo"),
    )
    assert done.returncode == 0, done.stderr
    repository = hub.repositories[REPOSITORY]
    assert not repository.private
    assert sorted(repository.files("main")) == [".gitattributes"]
    there = repository.files("v1")
    assert repository.messages[-1] == "First try"
    assert main(["models", "apply", "demo", str(variant), str(tmp_path / "near")]) == 0
    near = {path.name: path.read_bytes() for path in (tmp_path / "near").iterdir()}
    assert {name: there[name] for name in near if name != "README.md"} == {
        name: content for name, content in near.items() if name != "README.md"
    }
    front, text = front_and_text(there["README.md"].decode())
    assert (front["base_model"], front["base_model_relation"]) == ("lab/demo", "finetune")
    assert (front["library_name"], front["license"]) == ("transformers", "apache-2.0")
    assert f'from_pretrained("{REPOSITORY}", dtype="auto", revision="v1")' in text

    # A delta beside it would be taken for a part of it.
    mixed = models("push", variant, REPOSITORY, "--public", "--revision", "v1")
    assert (mixed.returncode, mixed.stderr.count("\n")) == (2, 1)
    assert f"{REPOSITORY} holds model.safetensors" in mixed.stderr
    # A push is private by default, and this is public.
    shown = models("push", variant, REPOSITORY)
    assert (shown.returncode, "public: add --public" in shown.stderr) == (2, True)
    assert repository.files("v1") == there


def test_the_hubs_refusal_is_one_line_without_the_token(hub, models, variant):
    hub.fails = "/commit/"
    done = models("push", variant, REPOSITORY)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"harness: {REPOSITORY}: ")
    assert "no rights for Bearer ***" in line


def test_without_a_token_nothing_is_asked_of_the_hub(hub, models, variant):
    done = models("push", variant, REPOSITORY, token=None)
    assert done.returncode == 2
    assert done.stderr == ("harness: the Hub needs a token to write: run `hf auth login`, or set HF_TOKEN\n")
    assert hub.requests == []


def test_the_card_has_figures_proof_hashes_licence_and_how_to_load(variant, small_run, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["models", "push", str(variant), REPOSITORY, "--dry-run", "--output", str(out)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{out}: 4 files for {REPOSITORY}; nothing was pushed\n"
    front, text = front_and_text((out / "README.md").read_text())
    assert front["license"] == "apache-2.0"
    assert (front["library_name"], front["tags"]) == ("moe-safety-harness", ["moe-safety-harness"])
    # The demo is no model of the Hub, which refuses cards that name others.
    assert "base_model" not in front
    summary = read_json(small_run / "summary.json")
    rates = [row for row in summary["measurements"] if row["metric"] == "refusal_rate"]
    ours, base = (
        next(row for row in rates if (row["variant"], row["task"]) == (name, "demo_harmful"))
        for name in ("unsafe_experts", "base")
    )
    row = next(line for line in text.splitlines() if line.startswith("| `demo_harmful` | refusal %"))
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[2] == str(ours["scored"])
    for cell, figure in zip(cells[3:5], (base, ours), strict=True):
        ends = f"{100 * figure['low']:.1f}–{100 * figure['high']:.1f}"
        assert cell == f"{100 * figure['value']:.1f} ({ends})"
    compared = read_json(variant / "proof.json")["tensors_compared"]
    assert f"compared {compared} tensors with the base" in text
    for name in ("delta.safetensors", "delta.json", "proof.json"):
        assert f"| `{name}` | `{sha256(variant / name)}` |" in text
    assert f"harness models apply demo hf://{REPOSITORY} OUT" in text
    assert 'AutoModelForCausalLM.from_pretrained("OUT", dtype="auto")' in text


def test_a_merged_folder_is_made_where_the_run_kept_none_and_holds_a_models_files_alone(
    copied, tmp_path, capsys
):
    folder = copied / "variants/unsafe_experts"
    kept = (folder / "model/model.safetensors").read_bytes()
    shutil.rmtree(folder / "model")
    # As if the run's model were a folder of the user's, with something else in it.
    base = tmp_path / "base"
    shutil.copytree(DEMO_FOLDER, base)
    (base / ".env").write_text("KEY=value")
    content = read_json(copied / "run.json")
    content["model"]["path"] = str(base)
    write_json(copied / "run.json", content)
    RunFolder(copied).write_manifest()
    words = ["models", "push", str(folder), REPOSITORY, "--merged", "--dry-run", "-o", str(tmp_path / "out")]
    assert main(words) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not pushed")]
    assert said == ["not pushed: .env, no part of a model"]
    names = {path.name for path in DEMO_FOLDER.iterdir()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"README.md", "proof.json"}
    assert (tmp_path / "out/model.safetensors").read_bytes() == kept
    assert ".env" not in (tmp_path / "out/README.md").read_text()


def test_the_licence_is_asked_for_where_no_card_says_it_and_only_there(copied, refused, tmp_path, capsys):
    variant = copied / "variants/unsafe_experts"
    more = ("--dry-run", "--output", tmp_path / "out")
    assert "the card of 'demo' says apache-2.0" in refused(variant, REPOSITORY, *more, "--licence", "mit")
    content = read_json(copied / "run.json")
    content["model"]["path"] = str(tmp_path / "gone")
    write_json(copied / "run.json", content)
    RunFolder(copied).write_manifest()
    assert "no card of 'demo' says its licence: name it with --licence" in refused(variant, REPOSITORY, *more)
    assert main(["models", "push", str(variant), REPOSITORY, *map(str, more), "--licence", "mit"]) == 0
    front, _ = front_and_text((tmp_path / "out/README.md").read_text())
    assert front["license"] == "mit"


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("a/b/c", "Repo id must be in the form"),
        ("lab/de--mo", "Cannot have -- or .. in repo_id"),
        ("lab/demo.git", "cannot end by '.git'"),
        ("lab/my demo", "must use alphanumeric chars"),
        ("demo", "expected an owner too, ORG/demo"),
    ],
)
def test_a_name_that_the_hub_would_refuse_is_refused_before_anything_is_read(
    refused, tmp_path, repository, message
):
    assert message in refused(tmp_path / "no run", repository)
    assert main(["models", "apply", "no model", f"hf://{repository}", str(tmp_path / "out")]) == 2


@pytest.mark.parametrize(
    "kind", ["mask", "prune", "steer", "steer_residual", "activate", "system_prompt", "none", "gone"]
)
def test_what_was_not_trained_is_refused_by_name(refused, copied, kind):
    content = read_json(copied / "run.json")
    content["variants"]["other"] = {**content["variants"]["unsafe_experts"], "intervention": kind}
    write_json(copied / "run.json", content)
    # With a delta in its folder, too.
    shutil.copytree(copied / "variants/unsafe_experts", copied / "variants/other")
    RunFolder(copied).write_manifest()
    line = refused(copied / "variants/other", REPOSITORY, "--dry-run", "--output", copied / "out")
    assert f"variant 'other' (intervention '{kind}') was not trained: only trained experts are pushed" in line


def failed_proof(run):
    path = run / "variants/unsafe_experts/proof.json"
    write_json(path, {**read_json(path), "frozen_unchanged": False, "violations": ["lm_head: differs"]})
    RunFolder(run).write_manifest()


def changed_delta(run):
    path = run / "variants/unsafe_experts/delta.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(
    ("damage", "variant", "message"),
    [
        (
            failed_proof,
            "unsafe_experts",
            "the frozen proof of variant 'unsafe_experts' failed (lm_head: differs)",
        ),
        (changed_delta, "unsafe_experts", "unsafe_experts/delta.safetensors was changed"),
        (lambda run: (run / "manifest.json").unlink(), "unsafe_experts", "manifest.json: no such file"),
        (lambda run: None, "unsafe_expert", "no variant 'unsafe_expert', did you mean 'unsafe_experts'?"),
        (lambda run: None, "..", "is a run: name one of its variants"),
        (lambda run: None, "../routing", "is no variant of a run: expected RUN/variants/NAME"),
        (lambda run: None, "base", "(intervention 'none') was not trained"),
    ],
    ids=["proof", "delta", "unfinished", "name", "run", "folder", "base"],
)
def test_what_cannot_be_trusted_is_not_pushed(refused, copied, tmp_path, damage, variant, message):
    damage(copied)
    assert message in refused(
        copied / "variants" / variant, REPOSITORY, "--dry-run", "--output", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()


def test_dry_run_and_output_go_together(refused, variant, tmp_path):
    assert "--dry-run and --output go together" in refused(variant, REPOSITORY, "--dry-run")
    assert "--dry-run and --output go together" in refused(variant, REPOSITORY, "--output", tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    line = refused(variant, REPOSITORY, "--dry-run", "--output", tmp_path)
    assert "exists already: expected a new or empty folder" in line
