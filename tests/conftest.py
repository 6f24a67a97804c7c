"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import settings

from harness.base.files import read_json

if TYPE_CHECKING:
    from harness.models.load import LoadedModel

# How long an example takes depends on what else the machine does.
settings.register_profile("no_clock", deadline=None)
settings.load_profile("no_clock")

_BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data"

# Read when torch and the tokenizers are first imported, by subprocesses too: tiny models gain nothing from
# threads, and answers must not depend on their number. No test may reach for the hub.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that hold slow tests first, so that no process is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keep what the imported packages hold out of garbage collections."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with copies of the public prompt sets, where there is one."""
    folder = Path(os.environ.get("HARNESS_TEST_DATA", _BESIDE_THE_CHECKOUT))
    if not (folder / "advbench").is_dir():
        pytest.skip("no copies of the public prompt sets: name their folder with HARNESS_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def demo() -> LoadedModel:
    """The embedded demo model in float32; whoever changes it puts it back."""
    from harness.models.load import load_model, quiet_transformers, resolve_model

    quiet_transformers()
    loaded = load_model(resolve_model("demo"), dtype="float32", device="cpu")
    gc.freeze()
    return loaded


# Small enough for a forward pass in milliseconds; layer 0 of qwen3_moe and deepseek_v3 is dense, so that true
# layer indices and places among the MoE layers differ.
_SHAPE: dict[str, Any] = {
    "vocab_size": 1500,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3_moe": (
        "Qwen3Moe",
        {
            "head_dim": 16,
            "moe_intermediate_size": 16,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "mlp_only_layers": [0],
        },
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None}),
    "olmoe": ("Olmoe", {"num_experts": 8, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2Moe",
        {
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 24,
            "num_experts": 8,
            "num_experts_per_tok": 2,
        },
    ),
    # Transposed weights, biases, gate and up interleaved.
    "gpt_oss": (
        "GptOss",
        {
            "head_dim": 16,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "layer_types": ["full_attention"] * 3,
        },
    ),
    # A correction bias and group limits decide the routing, so it cannot be read off the logits.
    "deepseek_v3": (
        "DeepseekV3",
        {
            "moe_intermediate_size": 16,
            "n_routed_experts": 8,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": None,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
        },
    ),
}


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """Build a random model of a family: `tiny_model("mixtral", seed=1, router_aux_loss_coef=0.5)`."""
    import torch
    import transformers

    def build(family: str, seed: int = 0, **config: Any) -> Any:
        name, own = _FAMILIES[family]
        torch.manual_seed(seed)
        settings = getattr(transformers, f"{name}Config")(**{**_SHAPE, **own, **config})
        model = getattr(transformers, f"{name}ForCausalLM")(settings).float().eval().requires_grad_(False)
        # The libraries' own start values are so small, biases even zero, that a lost term would not show.
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if "norm" not in key and value.is_floating_point() and "inv_freq" not in key:
                torch.nn.init.normal_(value, std=0.15)
        return model

    return build


@pytest.fixture(params=list(_FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Every family of fused experts that the tests cover."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_loaded(tiny_model: Callable[..., Any], demo: LoadedModel) -> Callable[..., LoadedModel]:
    """The same with the demo's tokenizer, as the engine and the training loop take it."""
    import torch

    from harness.models.load import LoadedModel, ModelRef
    from harness.models.moe import find_moe

    def build(family: str, **settings: Any) -> LoadedModel:
        model = tiny_model(family, **settings)
        ref = ModelRef(family, Path("nowhere"))
        return LoadedModel(ref, find_moe(model), demo.tokenizer, torch.device("cpu"), torch.float32)

    return build


@pytest.fixture
def saved_model(tmp_path: Path, demo: LoadedModel) -> Callable[[Any], Path]:
    """Write a model as a checkpoint folder with the demo's tokenizer."""

    def save(model: Any, name: str = "checkpoint") -> Path:
        model.save_pretrained(tmp_path / name)
        demo.tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


SMALL_RUN = (
    *("run", "--intervention", "unsafe_experts", "--limit", "12", "--draws", "1"),
    *("--set", "training.max_steps=4", "--capability-limit", "8", "--save-model"),
)
"""The main job on the demo model, cut down to seconds; too little training to change what it says."""


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a folder once for all worker processes of a session: `once("name", lambda folder: ...)`."""

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        # As pytest-xdist's documentation advises: the folder above those of the workers is the session's own.
        place = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            place = place.parent
        folder, done = place / f"once-{name}", place / f"once-{name}.done"
        with FileLock(place / f"once-{name}.lock"):
            if not done.exists():
                # What a worker left that failed here.
                shutil.rmtree(folder, ignore_errors=True)
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def thinking_demo(once: Callable[[str, Callable[[Path], object]], Path]) -> Callable[..., Path]:
    """A small model that thinks before it answers, made once: `thinking_demo(opened_by_template=True)`."""
    from thinking_demo import build_thinking_demo

    def of(opened_by_template: bool = False) -> Path:
        name = f"thinking-demo-opened-by-{'template' if opened_by_template else 'model'}"
        return once(name, lambda folder: build_thinking_demo(folder, opened_by_template))

    return of


@pytest.fixture(scope="session")
def small_run(
    once: Callable[[str, Callable[[Path], object]], Path], request: pytest.FixtureRequest
) -> Iterator[Path]:
    """The folder of one small run, made once for all workers, to be read and not changed."""
    from harness.cli.main import main
    from harness.runs.integrity import verify_run

    def run(folder: Path) -> None:
        request.getfixturevalue("demo")
        assert main([*SMALL_RUN, "--output", str(folder)]) == 0

    folder = once("small-run", run)
    yield folder
    # A test that changed it would have changed it for other tests, in other processes too.
    verify_run(folder)


@pytest.fixture
def rerun(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Path, list[str]]]:
    """Run the same command again on a copy of the small run; returns the folder and the stages that ran."""
    from harness.cli.main import main
    from harness.runs.run_folder import RunFolder

    folder, stages, original = tmp_path / "run", [], RunFolder.stage
    shutil.copytree(small_run, folder)

    def noted(self: RunFolder, stage: str, *rest: Any) -> Any:
        stages.append(stage)
        return original(self, stage, *rest)

    monkeypatch.setattr(RunFolder, "stage", noted)

    def run(*more: str) -> tuple[Path, list[str]]:
        stages.clear()
        assert main([*SMALL_RUN, "--output", str(folder), *more]) == 0
        return folder, list(stages)

    return run


@pytest.fixture(scope="session")
def findings() -> Callable[[Path], dict[str, Any]]:
    """Return everything that a run found out, by file, without times and ids."""

    def of(folder: Path) -> dict[str, Any]:
        import torch
        from safetensors import safe_open

        summary = read_json(folder / "summary.json")
        for part in (summary, *summary["variants"].values()):
            del part["seconds"]
        del summary["run_id"], summary["created"]
        patterns = ("responses/*", "verdicts/*", "capability.json", "selection.json", "train.jsonl")
        found: dict[str, Any] = {"summary.json": summary}
        for pattern in (*patterns, "proof.json", "delta.json", "routing/*.jsonl", "training/*.jsonl"):
            for path in folder.rglob(pattern):
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
        for path in [*folder.glob("routing/*.safetensors"), *folder.rglob("delta.safetensors")]:
            # safetensors writes its metadata in any order, so equal files may differ in bytes.
            with safe_open(path, framework="pt") as file:
                tensors = {key: file.get_tensor(key).view(torch.uint8).tolist() for key in file.keys()}  # noqa: SIM118
                found[path.relative_to(folder).as_posix()] = (file.metadata(), tensors)
        return found

    return of
