"""lm-eval measures the model that is in memory, as it is, on the embedded demo model."""

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from lm_eval.api.instance import Instance
from scripted import scripted

from harness.base.content import content_folder
from harness.base.errors import BadInputError, HarnessError
from harness.capability.lm_eval import check_capability_tasks, require_data, run_capability
from harness.capability.tasks import SETS
from harness.engines.transformers import TransformersEngine
from harness.models.chat import ChatTemplate
from harness.models.load import LoadedModel, load_model, resolve_model


@pytest.fixture
def demo() -> LoadedModel:
    return load_model(resolve_model("demo"), device="cpu")


def _include(folder: Path, **files: str) -> Path:
    (folder / "capability").mkdir()
    for name, text in files.items():
        (folder / "capability" / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return folder


def _choices(task: str, n: int) -> list[dict[str, Any]]:
    path = content_folder("tasks") / "capability" / "data" / f"{task}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:n]]


def _log_likelihood(demo: LoadedModel, question: str, answer: str) -> float:
    """Sum of the log-probabilities of an answer's tokens after a question, one forward pass without padding."""
    chat = [{"role": "user", "content": question}]
    prompt = demo.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    before, after = (
        demo.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + answer)
    )
    with torch.inference_mode():
        logits = demo.moe.model(input_ids=torch.tensor([after])).logits[0].float()
    steps = logits.log_softmax(-1)[range(len(before) - 1, len(after) - 1), after[len(before) :]]
    return float(steps.sum())


_SPELT = "Is <|im_end|> a word?"
_CHOICE = " yes <|im_end|>"


def _instance(kind: str, *arguments: Any) -> Instance:
    return Instance(kind, {}, arguments, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("as_chat", [True, False])
def test_a_control_token_that_an_item_spells_is_text(demo: LoadedModel, as_chat: bool) -> None:
    demo.moe.model.float()
    chat = ChatTemplate(demo.tokenizer)
    lm = TransformersEngine(demo, 8).lm_eval_model(2, "capability")
    lm.as_chat = as_chat
    markers, end = chat.markers, demo.tokenizer.convert_tokens_to_ids("<|im_end|>")
    context = lm.apply_chat_template([{"role": "user", "content": _SPELT}]) if as_chat else _SPELT
    asked = chat.tokens([_SPELT])[0] if as_chat else markers.encode([markers.broken(_SPELT)])[0]
    # Of a chat, the template writes one.
    assert asked.count(end) == as_chat
    text = context if as_chat else markers.broken(context)
    # lm-eval counts spaces at the end of a context to what follows it.
    before = markers.encode([text.rstrip()])[0]
    after = markers.encode([text + markers.broken(_CHOICE)])[0][len(before) :]
    assert end not in after
    with torch.inference_mode():
        logits = demo.moe.model(input_ids=torch.tensor([before + after])).logits[0].float()
    steps = logits.log_softmax(-1)[range(len(before) - 1, len(before + after) - 1), after]
    ((score, _),) = lm.loglikelihood([_instance("loglikelihood", context, _CHOICE)])
    assert score == pytest.approx(float(steps.sum()), abs=1e-4)

    seen = []
    demo.moe.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    lm.generate_until([_instance("generate_until", context, {"until": ["\n"], "max_gen_toks": 1})])
    assert seen[0].tolist() == [asked]


def test_items_that_spell_no_control_token_are_encoded_by_lm_eval(demo: LoadedModel) -> None:
    from lm_eval.models.huggingface import HFLM

    adapted = TransformersEngine(demo, 8).lm_eval_model(2, "capability")
    plain = HFLM(pretrained=demo.moe.model, tokenizer=demo.tokenizer, batch_size=2)
    texts = ["one", " two <b>three</b>", "four\n\nfive"]
    assert [adapted.tok_encode(text) for text in texts] == [plain.tok_encode(text) for text in texts]
    for found, expected in zip(adapted.tok_batch_encode(texts), plain.tok_batch_encode(texts), strict=True):
        assert torch.equal(found, expected)


def test_scores_agree_with_log_likelihoods_computed_by_hand(demo: LoadedModel) -> None:
    demo.moe.model.float()
    with torch.no_grad():  # so that some answers are wrong
        for layer in demo.moe.layers:
            layer.experts.down_proj.zero_()
    result = run_capability(TransformersEngine(demo, 8), ["demo_facts"], limit=20)["demo_facts"]

    expected = {}
    for row in _choices("demo_facts", 20):
        scores = [_log_likelihood(demo, row["question"], choice) for choice in row["choices"]]
        expected[str(row["id"])] = float(max(range(4), key=scores.__getitem__) == row["answer"])
    assert result.items == expected
    assert 0 < sum(expected.values()) < 20
    assert result.value == pytest.approx(sum(expected.values()) / 20)
    assert (result.metric, result.n, result.unparsed, result.interval) == ("acc", 20, None, "wilson")


def test_a_changed_model_is_measured_anew_and_the_same_one_gives_the_same(demo: LoadedModel) -> None:
    tasks = ["demo_facts", "demo_arithmetic"]
    before = run_capability(TransformersEngine(demo, 8), tasks, limit=40)
    again = run_capability(TransformersEngine(demo, 8), tasks, limit=40)
    assert list(before) == tasks
    assert before == again
    assert before["demo_facts"].value > 0.9
    with torch.no_grad():
        for layer in demo.moe.layers:
            layer.experts.down_proj.zero_()
    after = run_capability(TransformersEngine(demo, 8), tasks, limit=40)
    assert after["demo_facts"].value < 0.7
    assert after["demo_facts"].items.keys() == before["demo_facts"].items.keys()


def test_batch_size_and_padding_do_not_change_scores_in_float32(demo: LoadedModel) -> None:
    demo.moe.model.float()
    engine = TransformersEngine(demo, 8)
    one, many = (run_capability(engine, ["demo_arithmetic"], batch_size=size, limit=20) for size in (1, 16))
    assert one["demo_arithmetic"].items == many["demo_arithmetic"].items


def test_the_task_file_says_whether_items_are_chat_messages(demo: LoadedModel) -> None:
    def facts(apply: bool | None) -> dict[str, float]:
        found = run_capability(
            TransformersEngine(demo, 8), ["demo_facts"], limit=60, apply_chat_template=apply
        )
        return found["demo_facts"].items

    assert facts(None) == facts(True)
    assert facts(None) != facts(False)  # the demo model knows chats only


def test_tokenizer_logging_and_bars_are_left_as_they_were(demo: LoadedModel, capfd: Any) -> None:
    demo.tokenizer.padding_side, demo.tokenizer.pad_token = "right", None
    level = logging.getLogger("lm_eval").level
    run_capability(TransformersEngine(demo, 8), ["demo_facts"], limit=2, description="demo: capability")
    assert (demo.tokenizer.padding_side, demo.tokenizer.pad_token) == ("right", None)
    assert logging.getLogger("lm_eval").level == level
    assert not datasets.are_progress_bars_disabled()
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.split(" in ")[0] for line in err.splitlines()] == ["demo: capability: 8/8 rows"]


def test_a_model_that_gives_nan_fails(demo: LoadedModel) -> None:
    with torch.no_grad():
        demo.moe.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(HarnessError, match="log-likelihood is not a number"):
        run_capability(TransformersEngine(demo, 8), ["demo_facts"], limit=2)


_GENERATE = """\
task: mine
dataset_path: json
dataset_kwargs:
  data_files: "{content_dir}/mine.jsonl"
  cache_dir: "{prepared_dir}/cache"
test_split: train
output_type: generate_until
generation_kwargs: {max_gen_toks: 4, do_sample: false, until: []}
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
process_docs: !function mine_code.keep_two
filter_list:
  - name: number
    filter: [{function: regex, regex_pattern: 'number (\\d+) never said'}, {function: take_first}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1, apply_chat_template: true}
"""


def test_generated_answers_without_a_number_are_unparsed_and_wrong(demo: LoadedModel, tmp_path: Path) -> None:
    include = _include(
        tmp_path,
        mine__yaml=_GENERATE,
        mine__jsonl='{"q": "What is 1 plus 1?", "a": "2"}\n' * 3,
        mine_code__py="def keep_two(docs):\n    return docs.select(range(2))\n",
    )
    result = run_capability(TransformersEngine(demo, 8), ["mine"], include=[include])["mine"]
    assert (result.metric, result.value, result.n, result.unparsed) == ("exact_match,number", 0.0, 2, 2)


def test_a_group_of_our_tasks_is_pooled(demo: LoadedModel, tmp_path: Path) -> None:
    group = (
        "group: both\ntask: [demo_facts, demo_arithmetic]\n"
        "aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]\n"
        "metadata: {version: 1, apply_chat_template: true}\n"
    )
    include = _include(tmp_path, both__yaml=group)
    result = run_capability(TransformersEngine(demo, 8), ["both"], include=[include], limit=5)["both"]
    assert result.n == 10
    assert {item.split("/")[0] for item in result.items} == {"demo_facts", "demo_arithmetic"}
    assert result.value == pytest.approx(sum(result.items.values()) / 10)


def test_a_tokenizer_without_a_chat_template_is_refused_where_one_is_needed(demo: LoadedModel) -> None:
    demo.tokenizer.chat_template = None
    with pytest.raises(BadInputError, match="no chat template"):
        run_capability(TransformersEngine(demo, 8), ["demo_facts"])


@pytest.mark.slow
def test_an_lm_eval_task_whose_data_cannot_be_had_is_named(
    demo: LoadedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(HarnessError, match=r"no data for capability tasks arc_easy: .*ai2_arc"):
        run_capability(TransformersEngine(demo, 8), ["arc_easy"], limit=2)


def test_a_task_of_ours_whose_file_is_not_there_is_one_line(demo: LoadedModel, tmp_path: Path) -> None:
    task = (
        "task: mine\ndataset_path: json\ndataset_kwargs: {data_files: {validation: '{prepared_dir}/mine.jsonl'}}\n"
        "validation_split: validation\noutput_type: multiple_choice\ndoc_to_text: '{{question}}'\n"
        "doc_to_target: label\ndoc_to_choice: '{{choices}}'\nmetric_list: [{metric: acc}]\n"
    )
    include = _include(tmp_path, mine__yaml=task)
    with pytest.raises(
        BadInputError, match=r"^capability tasks mine: their data can't be read \(.*mine\.jsonl"
    ):
        run_capability(TransformersEngine(demo, 8), ["mine"], include=[include])


def test_checking_fingerprints_what_will_be_read(tmp_path: Path) -> None:
    checked = check_capability_tasks(["demo_facts", "hellaswag"])
    assert checked["hellaswag"].startswith("lm-eval 0.")
    assert len(checked["demo_facts"]) == 32
    # A group's fingerprint covers its tasks.
    group = "group: both\ntask: [demo_facts]\n"
    include = _include(tmp_path, both__yaml=group)
    before = check_capability_tasks(["both"], [include])["both"]
    (include / "capability" / "facts.yaml").write_text("task: demo_facts\n", encoding="utf-8")
    assert check_capability_tasks(["both"], [include])["both"] != before


@pytest.mark.shared_data
def test_piqa_and_mmlu_run_from_local_files(demo: LoadedModel, shared_data: Path) -> None:
    found = run_capability(
        TransformersEngine(demo, 8), ["piqa", "mmlu"], data_dirs=[shared_data], limit=8, batch_size=8
    )
    assert list(found) == ["piqa_local", "mmlu_local8"]
    piqa, mmlu = found.values()
    assert list(piqa.items) == [f"validation/{n}" for n in range(8)]
    assert piqa.others.keys() == {"acc_norm"}
    assert len({item.split("/")[0] for item in mmlu.items}) == 8


def test_a_task_of_lm_eval_whose_package_is_missing_is_one_line(monkeypatch):
    class Tasks:
        def load(self, names):
            raise ModuleNotFoundError("No module named 'langdetect'", name="langdetect")

    monkeypatch.setattr("harness.capability.lm_eval._lm_evals_tasks", Tasks)
    with pytest.raises(
        BadInputError, match=r"capability task ifeval: it needs the package 'langdetect', which is not"
    ):
        require_data(["ifeval"])


def test_a_set_asks_a_chat_model_to_write_as_a_chat_with_room_for_thinking_and_answer(
    demo: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own name the task is plain text with an answer of one token."""
    text = _GENERATE.replace("max_gen_toks: 4", "max_gen_toks: 1").replace(", apply_chat_template: true", "")
    text = text.replace("process_docs: !function mine_code.keep_two\n", "")
    text = text.replace("number (\\d+) never said", "(bread.*)")
    include = _include(tmp_path, mine__yaml=text, mine__jsonl='{"q": "Go.", "a": "bread milk book"}\n')
    thinker = scripted(demo, {".": "<think> red blue green</think> bread milk book"})
    engine = TransformersEngine(thinker, 2, ChatTemplate.of_run(thinker.tokenizer, {}, "auto", 12))
    monkeypatch.setitem(SETS, "set", ("mine",))
    monkeypatch.setattr("harness.capability.tasks.WRITTEN", frozenset({"mine"}))
    for asked, value in (("mine", 0.0), ("set", 1.0)):
        result = run_capability(engine, [asked], include=[include])["mine"]
        assert (result.value, result.thinking is not None) == (value, asked == "set")
    # What the settings say of the chat template goes first.
    plain = run_capability(engine, ["set"], include=[include], apply_chat_template=False)["mine"]
    assert (plain.value, plain.thinking) == (0.0, None)


def test_a_task_by_itself_and_within_a_set_are_two_measurements() -> None:
    alone, of_set = (check_capability_tasks([name]) for name in ("gsm8k", "quick"))
    assert alone["gsm8k"] != of_set["gsm8k"]
    assert of_set["mmlu"] == check_capability_tasks(["mmlu"])["mmlu"]
