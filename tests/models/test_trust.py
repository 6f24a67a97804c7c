"""A checkpoint's own Python code runs where it is asked for and transformers has no class, and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from harness.base.errors import BadInputError
from harness.cli.main import main
from harness.models.load import DEMO_FOLDER, load_model, load_tokenizer, outline_model, resolve_model
from harness.models.native import native_type
from harness.models.stored import StoredExperts

OWN = """
from pathlib import Path
from transformers import MixtralConfig, MixtralForCausalLM

Path(__file__).with_name("ran").touch()

class OwnConfig(MixtralConfig):
    model_type = "{model_type}"

class OwnModel(MixtralForCausalLM):
    config_class = OwnConfig
"""
OWN_TOKENIZER = """
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

class OwnTokenizer(PreTrainedTokenizerFast):
    vocab_files_names = {"vocab_file": "own.tiktoken"}

    def __init__(self, vocab_file, **settings):
        super().__init__(tokenizer_object=Tokenizer.from_file(vocab_file), **settings)
"""


def change(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch) -> Path:
    # transformers copies the code that it runs to its cache.
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path / "modules"


@pytest.fixture
def with_code(tiny_model, saved_model):
    """Write a checkpoint that brings code of its own, of this model type."""

    def write(model_type: str) -> Path:
        model = tiny_model("mixtral")
        folder = saved_model(model)
        # Names on disk are those in memory, since nobody else knows how to convert the weights of an unknown type.
        model.save_pretrained(folder, save_original_format=model_type == "mixtral")
        (folder / "own.py").write_text(OWN.format(model_type=model_type))
        own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
        change(folder / "config.json", model_type=model_type, auto_map=own)
        return folder

    return write


def kinds(ref) -> set[str]:
    models = outline_model(ref), StoredExperts(ref).moe, load_model(ref, device="cpu").moe
    return {type(moe.model).__name__ for moe in models}


@pytest.mark.parametrize("trusted", [True, False])
def test_a_class_of_transformers_wins_over_the_checkpoints_own(with_code, modules, trusted):
    ref = resolve_model(str(with_code("mixtral")), trust_remote_code=trusted)
    assert ref.trust_remote_code is trusted
    assert kinds(ref) == {"MixtralForCausalLM"}
    assert not list(modules.rglob("ran"))


def test_what_transformers_has_no_class_for_runs_its_own_where_that_is_asked_for(with_code):
    ref = resolve_model(str(with_code("own_moe")), trust_remote_code=True)
    assert kinds(ref) == {"OwnModel"}


@pytest.mark.parametrize("flag", [[], ["--trust-remote-tokenizer"]])
def test_what_needs_its_own_code_is_refused_in_one_line_without_it(with_code, modules, capsys, flag):
    assert main(["run", "--dry-run", "--model", str(with_code("own_moe")), *flag]) == 2
    assert capsys.readouterr().err == (
        "harness: model type 'own_moe' of 'checkpoint' has no class in transformers: the checkpoint brings its own "
        "code, which --trust-remote-code lets run\n"
    )
    assert not modules.exists()


def test_no_code_runs_unless_asked_for(with_code):
    for name in (str(with_code("mixtral")), "demo"):
        ref = resolve_model(name)
        assert not ref.trust_remote_code
        assert not ref.trust_remote_tokenizer


@pytest.fixture
def with_tokenizer(tmp_path) -> Path:
    """The demo with a tokenizer of its own code, and no tokenizer.json that could be read without it."""
    folder = Path(shutil.copytree(DEMO_FOLDER, tmp_path / "demo"))
    (folder / "tokenizer.json").rename(folder / "own.tiktoken")
    (folder / "tokenization_own.py").write_text(OWN_TOKENIZER)
    change(
        folder / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]},
    )
    return folder


@pytest.mark.parametrize("trust", ["trust_remote_tokenizer", "trust_remote_code"])
def test_a_tokenizers_code_runs_alone(with_tokenizer, trust):
    tokenizer = load_tokenizer(resolve_model(str(with_tokenizer), **{trust: True}))
    assert type(tokenizer).__name__ == "OwnTokenizer"
    own = load_tokenizer(resolve_model("demo"))
    assert tokenizer("How are you?")["input_ids"] == own("How are you?")["input_ids"]


def test_a_tokenizer_that_needs_its_code_is_refused_in_one_line_without_it(with_tokenizer, modules, capsys):
    assert main(["run", "--dry-run", "--model", str(with_tokenizer)]) == 2
    assert capsys.readouterr().err == (
        "harness: the tokenizer of 'demo' brings its own code (tokenization_own.OwnTokenizer), which "
        "--trust-remote-tokenizer lets run\n"
    )
    assert not modules.exists()


def test_a_tokenizer_that_transformers_reads_runs_no_code_whatever_it_brings(tmp_path, modules):
    folder = Path(shutil.copytree(DEMO_FOLDER, tmp_path / "demo"))
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "no_such_file.Own"]})
    tokenizer = load_tokenizer(resolve_model(str(folder), trust_remote_code=True))
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    assert not modules.exists()


KIMI = {
    "AutoConfig": "configuration_deepseek.DeepseekV3Config",
    "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
}


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("model_type", ["kimi_k2", "kimi_k9"])
def test_a_copy_of_a_family_under_another_name_loads_as_that_family(
    tiny_model, saved_model, model_type, trusted
):
    folder = saved_model(tiny_model("deepseek_v3"))
    change(folder / "config.json", model_type=model_type, auto_map=KIMI)
    ref = resolve_model(str(folder), trust_remote_code=trusted)
    assert kinds(ref) == {"DeepseekV3ForCausalLM"}
    assert outline_model(ref).model.config.model_type == "deepseek_v3"


@pytest.mark.parametrize(
    ("config", "native"),
    [
        ({"model_type": "mixtral"}, "mixtral"),
        ({"model_type": "mixtral", "auto_map": {"AutoModelForCausalLM": "own.Own"}}, "mixtral"),
        ({"model_type": "kimi_k2"}, "deepseek_v3"),
        ({"model_type": "kimi_k25", "auto_map": {"AutoModel": "own.Kimi"}}, "kimi_k25"),
        ({"model_type": "new", "architectures": ["MixtralForCausalLM"]}, None),
        (
            {
                "model_type": "new",
                "architectures": ["MixtralForCausalLM"],
                "auto_map": {"AutoModelForCausalLM": "own.Own"},
            },
            None,
        ),
        ({"model_type": "new", "architectures": "MixtralForCausalLM"}, None),
        ({"model_type": "new"}, None),
        # Known, but as something else than a language model.
        ({"model_type": "siglip", "auto_map": {"AutoModelForCausalLM": "own.Own"}}, None),
    ],
)
def test_the_classes_of_a_configuration(config, native):
    assert native_type(config) == native


@pytest.mark.parametrize("model_type", [3, ["mixtral"], "", None, {}])
def test_a_model_type_that_is_no_name_is_one_line(model_type):
    with pytest.raises(BadInputError, match=r"config\.json has no model_type"):
        native_type({"model_type": model_type})


@pytest.mark.parametrize("model_type", ["kimi_k26", "deepseek_v5", "glm6_moe", "lasr_ct", "ling_moe"])
def test_another_version_of_a_family_is_no_advice(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(
        BadInputError, match=rf"^unknown model type '{model_type}': transformers .* no such model$"
    ):
        outline_model(resolve_model(str(tmp_path)))
