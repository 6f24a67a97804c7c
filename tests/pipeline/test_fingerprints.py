"""Which settings change the fingerprint of which stage: what a changed setting makes a run do again."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

from harness.base.fingerprint import fingerprint
from harness.config import make_config
from harness.experts.select import ExpertSelection
from harness.interventions.base import Prepared
from harness.interventions.train_experts import TrainExperts
from harness.models.chat import ChatTemplate
from harness.models.load import DEMO_FOLDER
from harness.models.moe import Expert
from harness.pipeline import answer, capture, drift, measure, select, train, train_adapter
from harness.pipeline.plan import make_plan
from harness.pipeline.session import Session
from harness.runs.run_folder import RunFolder

ANSWERS = {"answer base", "answer unsafe_experts"}
# In bfloat16 an answer depends on its batch, so that all that is generated or trained knows the settings of generation.
EVERYTHING = {
    *("capture", "own answers", "expert table", "train", "prove", "drift", "capability base", "capability"),
    *ANSWERS,
}


def answers(session, made):
    """Return the fingerprint of a variant's answers to test prompts."""
    return answer.answering(session, made, "demo_benign").fingerprint(session, made, "demo_benign")


def fingerprints(folder, *assignments, strength=None, draw=0, conversations=(), **flags):
    """Return the fingerprint of one stage of each kind."""
    config = make_config({"limit": 12, "model": "demo", **flags}, None, list(assignments))
    session = Session(make_plan(config), RunFolder(folder / "run"))
    variants = {variant.name: variant for variant in session.plan.variants}
    base, variant = Prepared(variants["base"]), variants["unsafe_experts"]
    if strength is not None:
        variant = type(variant)(variant.name, _Stronger(**variant.spec.model_dump(), strength=strength), draw)
    elif draw:
        variant = type(variant)(variant.name, variant.spec, draw)
    made = Prepared(variant, ExpertSelection("risk_diff", "all", (Expert(0, 1),)))
    training = train.train.fingerprint(session, made, list(conversations))
    trained = Prepared(made.variant, made.selection, None, training)
    return {
        "capture": capture.capture.fingerprint(session, "demo_harmful"),
        "own answers": answer._own_answers.fingerprint(session, "demo_benign"),
        "expert table": select._expert_table.fingerprint(session),
        "train": training,
        "prove": train.prove_frozen.fingerprint(session, trained),
        "drift": drift._drift.fingerprint(session, trained, {}),
        "answer base": answer.answering(session, base, "demo_benign").fingerprint(
            session, base, "demo_benign"
        ),
        "answer unsafe_experts": answer.answering(session, trained, "demo_benign").fingerprint(
            session, trained, "demo_benign"
        ),
        "capability base": measure._capability.fingerprint(session, base),
        "capability": measure._capability.fingerprint(session, trained),
    }


class _Stronger(TrainExperts):
    """As a kind is that got a field later."""

    strength: int


OF_THE_VARIANT = {"train", "prove", "drift", "answer unsafe_experts", "capability"}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return fingerprints(tmp_path_factory.mktemp("first"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, set()),
        ({"assignments": ["training.learning_rate=1e-3"]}, OF_THE_VARIANT),
        ({"assignments": ["training.checkpoint_every=3"]}, set()),
        ({"conversations": [{"answer": "No."}]}, OF_THE_VARIANT),
        ({"draw": 1}, OF_THE_VARIANT),
        ({"strength": 4}, OF_THE_VARIANT),
        ({"assignments": ["selection.top_k=4"]}, {"expert table"}),
        ({"assignments": ["selection.phase=prompt"]}, set()),
        ({"assignments": ["record=tokens"]}, {"capture", "expert table"}),
        ({"assignments": ["capability.limit=4"]}, {"capability base", "capability"}),
        ({"assignments": ["capability.tasks=[demo_arithmetic]"]}, {"capability base", "capability"}),
        ({"assignments": ["save_model=true"]}, {"prove"}),
        ({"judge": "keyword"}, set()),
        ({"draws": 3, "baselines": ["random_experts"]}, set()),
        ({"assignments": ["generation.max_new_tokens=5"]}, EVERYTHING),
        ({"assignments": ["generation.batch_size=3"]}, EVERYTHING),
        ({"assignments": ["generation.answers=2"]}, ANSWERS),
        ({"limit": 11}, {"capture", "own answers", "expert table", *ANSWERS}),
        ({"seed": 1}, EVERYTHING),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_a_changed_setting_changes_the_stages_that_depend_on_it(tmp_path, first, changes, expected):
    changes = dict(changes)
    found = fingerprints(tmp_path, *changes.pop("assignments", []), **changes)
    assert {stage for stage in found if found[stage] != first[stage]} == expected


def test_two_strengths_of_one_kind_share_no_answers(tmp_path):
    weak, strong = (fingerprints(tmp_path, strength=strength) for strength in (1, 4))
    assert {stage for stage in weak if weak[stage] != strong[stage]} == OF_THE_VARIANT


def test_other_weights_change_every_stage(tmp_path, first):
    model = tmp_path / "model"
    shutil.copytree(DEMO_FOLDER, model)
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] *= 1.5
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    tasks = ["demo_harmful", "demo_benign", "demo_twins"]
    found = fingerprints(tmp_path, "capability.tasks=[demo_facts]", model=str(model), tasks=tasks)
    assert not [stage for stage in found if found[stage] == first[stage]]


@pytest.mark.parametrize("opened", ["", "<think>"])
def test_a_training_of_earlier_versions_is_done_again_where_the_template_has_something_before_an_answer(
    tmp_path, opened
):
    session = Session(make_plan(make_config({"limit": 12, "model": "demo"})), RunFolder(tmp_path / "run"))
    tokenizer = copy.deepcopy(session.plan.chat.tokenizer)
    before, end = tokenizer.chat_template.rsplit("{% endif %}", 1)
    tokenizer.chat_template = f"{before}{opened}{{% endif %}}{end}"
    session.plan = replace(session.plan, chat=ChatTemplate(tokenizer))
    made = Prepared(next(variant for variant in session.plan.variants if variant.name == "unsafe_experts"))
    earlier = session.key(
        made=made.fingerprint,
        conversations=fingerprint([]),
        training=session.config.training.deciding("training"),
        seed=session.config.seed,
    )
    for training in (train.train, train_adapter.train_adapter):
        assert (training.fingerprint(session, made, []) != earlier) == bool(opened)
